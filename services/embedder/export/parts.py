"""A model taken apart: towers in torch, and everything about them that a manifest needs."""

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
    """A model's forward from inputs to unit vectors."""

    def __init__(self, model: nn.Module, forward: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model = model
        self._way = forward
        self.eval()  # else writing a graph turns dropout on afterwards

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return one unit vector a row."""
        return functional.normalize(self._way(self.model, *inputs), dim=-1)

    def vectors(self, *inputs: Tensor) -> Any:
        """Return the unit vectors as an array."""
        with torch.inference_mode():
            return self(*inputs).numpy()


@dataclass(frozen=True, slots=True)
class TextPart:
    """A tower of texts.

    `tokenizer` is what will be exported; `reference` makes of texts the inputs that the original wants, padded and cut
    by its own code.
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
    """A tower of pictures, how their pixels are made, and the original's own code for that."""

    tower: Tower
    preprocessing: Preprocessing
    processor: Any


@dataclass(frozen=True, slots=True)
class AudioPart:
    """A tower of spectrograms, what they are made by, and the original's own code for that."""

    tower: Tower
    features: Mapping[str, str | int | float | bool | None]
    extractor: Any


@dataclass(frozen=True, slots=True)
class Parts:
    """A model: its family in words, its towers, and notes for its users."""

    family: str
    text: TextPart | None = None
    image: ImagePart | None = None
    audio: AudioPart | None = None
    notes: tuple[str, ...] = ()


def pooled_output(output: Any) -> Tensor:
    """Return the projected vectors of one of transformers' `get_…_features`, whose result depends on its release."""
    return output if torch.is_tensor(output) else output.pooler_output
