"""The parts of a model: towers in torch, with everything that a manifest needs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from services.embedder.core.catalog import TOKEN_INPUTS, Padding, Prefixes
from services.embedder.core.preprocessing import Preprocessing

NO_PREFIXES = Prefixes()


class Tower(nn.Module):
    """A module from a model's inputs to unit vectors; `forward` computes them before normalisation."""

    def __init__(self, model: nn.Module, forward: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model = model
        self._forward = forward
        self.eval()  # otherwise exporting a graph enables dropout afterwards

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return one unit vector per row."""
        return functional.normalize(self._forward(self.model, *inputs), dim=-1)

    def vectors(self, *inputs: Tensor) -> Any:
        """Return the unit vectors as an array."""
        with torch.inference_mode():
            return self(*inputs).numpy()


@dataclass(frozen=True, slots=True)
class TextPart:
    """A text tower.

    `tokenizer` will be exported; `reference` tokenizes texts as the original does, with its padding and truncation.
    """

    tower: Tower
    tokenizer: Tokenizer
    reference: Callable[[Sequence[str]], tuple[Tensor, ...]]
    max_tokens: int
    padding: Padding | None = None
    inputs: tuple[str, ...] = TOKEN_INPUTS
    prefixes: Prefixes = NO_PREFIXES


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image tower, its preprocessing, and the original's image processor."""

    tower: Tower
    preprocessing: Preprocessing
    processor: Any


@dataclass(frozen=True, slots=True)
class AudioPart:
    """An audio tower, the parameters of its spectrograms, and the original's feature extractor."""

    tower: Tower
    features: Mapping[str, str | int | float | bool | None]
    extractor: Any


@dataclass(frozen=True, slots=True)
class Parts:
    """A model: the name of its family, its towers, and notes for users."""

    family: str
    text: TextPart | None = None
    image: ImagePart | None = None
    audio: AudioPart | None = None
    notes: tuple[str, ...] = ()


def pooled_output(output: Any) -> Tensor:
    """Return the vectors in the output of transformers' `get_…_features`, whose type depends on the release."""
    return output if torch.is_tensor(output) else output.pooler_output
