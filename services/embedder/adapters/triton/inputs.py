"""The input tensors of towers in requests to Triton."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc.aio import InferInput

from services.embedder.adapters.onnx.tokenizer import TokenIds, TowerTokenizer
from services.embedder.adapters.triton.golden import TEXTS, golden_rows
from services.embedder.adapters.triton.layout import ATTENTION_MASK, TEXT, ServedTower
from services.embedder.core.catalog import ImageTower, TextProjection, TextTower
from services.embedder.core.preprocessing import Pixels

E_contra = TypeVar("E_contra", contravariant=True)

MAX_TEXTS = 8
"""Most texts in one request: they run one by one, so a larger request only occupies an instance for longer."""

Shape = tuple[int, ...]
Inputs = Mapping[str, tuple[str, Shape]]
"""Datatype and shape of a Triton model's inputs by name; without the batch dimension."""


class InputBuilder(Protocol, Generic[E_contra]):
    """Builds the input tensors of a Triton model."""

    max_batch: int
    """Most elements in one request; the model's own limit applies too."""

    def mismatch(self, inputs: Inputs) -> str:
        """Return how `inputs` differ from those of this tower; empty if they do not."""
        ...

    async def build(self, elements: Sequence[E_contra], inputs: Inputs) -> list[InferInput]:
        """Return `elements`, at least one, as tensors for a model with these inputs."""
        ...


class TextInputBuilder:
    """Texts, as strings if the model tokenizes, else as tokens padded to the longest text of the request."""

    max_batch = MAX_TEXTS
    golden: Sequence[str] = TEXTS

    def __init__(self, tower: TextTower) -> None:
        self._tower = tower
        self._tokenizer = TowerTokenizer(tower)

    def mismatch(self, inputs: Inputs) -> str:
        kinds = {name: kind for name, (kind, _) in inputs.items()}
        tokens = dict.fromkeys(self._tower.inputs, "INT64")
        return "" if kinds in ({TEXT: "BYTES"}, tokens) else f"expected inputs {TEXT} or {tokens}, it has {kinds}"

    async def build(self, elements: Sequence[str], inputs: Inputs) -> list[InferInput]:
        if TEXT in inputs:
            return [_tensor(TEXT, "BYTES", np.array([[text.encode()] for text in elements], dtype=np.object_))]
        each = await asyncio.to_thread(lambda: [self._tokenizer.inputs(text) for text in elements])
        return [_tensor(name, "INT64", _pad([one[name] for one in each], self._padding_value(name))) for name in inputs]

    def _padding_value(self, name: str) -> int:
        return 0 if name == ATTENTION_MASK or self._tower.padding is None else self._tower.padding.token_id


class RowInputBuilder:
    """Rows of numbers, for the model's only input, whatever its name."""

    def __init__(self, shape: Shape, max_batch: int) -> None:
        self._shape = shape
        self.max_batch = max_batch
        self.golden: Sequence[Pixels] = list(golden_rows(*shape))

    def mismatch(self, inputs: Inputs) -> str:
        fits = list(inputs.values()) == [("FP32", self._shape)]
        return "" if fits else f"expected one input FP32 {list(self._shape)}, it has {inputs}"

    async def build(self, elements: Sequence[Pixels], inputs: Inputs) -> list[InferInput]:
        (name,) = inputs
        return [_tensor(name, "FP32", np.stack(elements))]


def input_builder(served: ServedTower, max_batch: int) -> TextInputBuilder | RowInputBuilder:
    """Return the builder of the inputs of a tower's Triton model."""
    match served.tower:
        case TextTower() as tower:
            return TextInputBuilder(tower)
        case TextProjection():
            return RowInputBuilder((served.input_dimensions,), max_batch)
        case ImageTower(preprocessing=preprocessing):
            return RowInputBuilder((3, preprocessing.size, preprocessing.size), max_batch)


def _tensor(name: str, kind: str, array: NDArray[Any]) -> InferInput:
    tensor = InferInput(name, array.shape, kind)
    tensor.set_data_from_numpy(array)
    return tensor


def _pad(rows: Sequence[TokenIds], padding_value: int) -> TokenIds:
    length = max(row.shape[1] for row in rows)
    padded = np.full((len(rows), length), padding_value, np.int64)
    for index, row in enumerate(rows):
        padded[index, : row.shape[1]] = row[0]
    return padded
