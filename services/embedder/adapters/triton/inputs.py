"""What a tower's inputs are on the wire to Triton."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc.aio import InferInput

from services.embedder.adapters.onnx.tokenizer import TokenIds, Tokens
from services.embedder.adapters.triton.golden import TEXTS, golden_rows
from services.embedder.adapters.triton.layout import ATTENTION_MASK, TEXT, ServedTower
from services.embedder.core.catalog import PictureTower, TextHead, TextTower
from services.embedder.core.preprocessing import Pixels

E_contra = TypeVar("E_contra", contravariant=True)

MAX_TEXTS = 8
"""Texts in one request: each is run alone, so more would only keep a copy from others."""

Shape = tuple[int, ...]
Inputs = Mapping[str, tuple[str, Shape]]
"""Datatype and shape of a Triton model's inputs by name; the first dimension of batches is left out."""


class InputBuilder(Protocol, Generic[E_contra]):
    """Builds a Triton model's input tensors of what a tower embeds."""

    max_batch: int
    """Elements in one request at most; the model's own limit holds besides."""

    def mismatch(self, inputs: Inputs) -> str:
        """Return why a model of these inputs cannot be this tower's; empty where it can."""
        ...

    async def build(self, elements: Sequence[E_contra], inputs: Inputs) -> list[InferInput]:
        """Return `elements`, at least one, as tensors for a model of these inputs."""
        ...


class TextInputBuilder:
    """Texts, as strings where the model tokenises, else as tokens, padded to the longest of a request."""

    max_batch = MAX_TEXTS
    golden: Sequence[str] = TEXTS

    def __init__(self, tower: TextTower) -> None:
        self._tower = tower
        self._tokens = Tokens(tower)

    def mismatch(self, inputs: Inputs) -> str:
        """Return why a model of these inputs cannot be this tower's; empty where it can."""
        kinds = {name: kind for name, (kind, _) in inputs.items()}
        tokens = dict.fromkeys(self._tower.inputs, "INT64")
        return "" if kinds in ({TEXT: "BYTES"}, tokens) else f"expected inputs {TEXT} or {tokens}, it has {kinds}"

    async def build(self, elements: Sequence[str], inputs: Inputs) -> list[InferInput]:
        """Return texts as tensors."""
        if TEXT in inputs:
            return [_tensor(TEXT, "BYTES", np.array([[text.encode()] for text in elements], dtype=np.object_))]
        each = await asyncio.to_thread(lambda: [self._tokens.inputs(text) for text in elements])
        return [_tensor(name, "INT64", _padded([one[name] for one in each], self._filling(name))) for name in inputs]

    def _filling(self, name: str) -> int:
        return 0 if name == ATTENTION_MASK or self._tower.padding is None else self._tower.padding.token_id


class RowInputBuilder:
    """Rows of numbers, under whatever name the model's one input has."""

    def __init__(self, shape: Shape, max_batch: int) -> None:
        self._shape = shape
        self.max_batch = max_batch
        self.golden: Sequence[Pixels] = list(golden_rows(*shape))

    def mismatch(self, inputs: Inputs) -> str:
        """Return why a model of these inputs cannot be this tower's; empty where it can."""
        fits = list(inputs.values()) == [("FP32", self._shape)]
        return "" if fits else f"expected one input FP32 {list(self._shape)}, it has {inputs}"

    async def build(self, elements: Sequence[Pixels], inputs: Inputs) -> list[InferInput]:
        """Return rows as tensors."""
        (name,) = inputs
        return [_tensor(name, "FP32", np.stack(elements))]


def input_builder(served: ServedTower, max_batch: int) -> TextInputBuilder | RowInputBuilder:
    """Return what builds the inputs of a tower's Triton model."""
    match served.tower:
        case TextTower() as tower:
            return TextInputBuilder(tower)
        case TextHead():
            return RowInputBuilder((served.input_dimensions,), max_batch)
        case PictureTower(preprocessing=wanted):
            return RowInputBuilder((3, wanted.size, wanted.size), max_batch)


def _tensor(name: str, kind: str, array: NDArray[Any]) -> InferInput:
    tensor = InferInput(name, array.shape, kind)
    tensor.set_data_from_numpy(array)
    return tensor


def _padded(rows: Sequence[TokenIds], filling: int) -> TokenIds:
    length = max(row.shape[1] for row in rows)
    padded = np.full((len(rows), length), filling, np.int64)
    for place, row in enumerate(rows):
        padded[place, : row.shape[1]] = row[0]
    return padded
