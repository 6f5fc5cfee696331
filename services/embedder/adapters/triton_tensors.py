"""What a tower's inputs are on the wire to Triton."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc.aio import InferInput

from services.embedder.adapters.tokenizing import TokenIds, Tokens
from services.embedder.catalogue import PictureTower, TextHead, TextTower
from services.embedder.preprocessing import Pixels
from services.embedder.triton_repository.golden import TEXTS, golden_rows
from services.embedder.triton_repository.layout import ATTENTION_MASK, TEXT, ServedTower

E_contra = TypeVar("E_contra", contravariant=True)

TEXTS_TOGETHER = 8
"""Texts in one request: each is run alone, so more would only keep a copy from others."""

Shape = tuple[int, ...]
Inputs = Mapping[str, tuple[str, Shape]]
"""Datatype and shape of a Triton model's inputs by name; the first dimension of batches is left out."""


class Feed(Protocol, Generic[E_contra]):
    """Turns what a tower embeds into tensors."""

    together: int
    """Elements in one request at most; the model's own limit holds besides."""

    def problem(self, inputs: Inputs) -> str:
        """Return why a model of these inputs cannot be this tower's; empty where it can."""
        ...

    async def tensors(self, elements: Sequence[E_contra], inputs: Inputs) -> list[InferInput]:
        """Return `elements`, at least one, as tensors for a model of these inputs."""
        ...


class TextFeed:
    """Texts, as strings where the model tokenises, else as tokens, padded to the longest of a request."""

    together = TEXTS_TOGETHER
    golden: Sequence[str] = TEXTS

    def __init__(self, tower: TextTower) -> None:
        self._tower = tower
        self._tokens = Tokens(tower)

    def problem(self, inputs: Inputs) -> str:
        """Return why a model of these inputs cannot be this tower's; empty where it can."""
        kinds = {name: kind for name, (kind, _) in inputs.items()}
        tokens = dict.fromkeys(self._tower.inputs, "INT64")
        return "" if kinds in ({TEXT: "BYTES"}, tokens) else f"expected inputs {TEXT} or {tokens}, it has {kinds}"

    async def tensors(self, elements: Sequence[str], inputs: Inputs) -> list[InferInput]:
        """Return texts as tensors."""
        if TEXT in inputs:
            return [_tensor(TEXT, "BYTES", np.array([[text.encode()] for text in elements], dtype=np.object_))]
        each = await asyncio.to_thread(lambda: [self._tokens.inputs(text) for text in elements])
        return [_tensor(name, "INT64", _padded([one[name] for one in each], self._filling(name))) for name in inputs]

    def _filling(self, name: str) -> int:
        return 0 if name == ATTENTION_MASK or self._tower.padding is None else self._tower.padding.token_id


class RowFeed:
    """Rows of numbers, under whatever name the model's one input has."""

    def __init__(self, shape: Shape, together: int) -> None:
        self._shape = shape
        self.together = together
        self.golden: Sequence[Pixels] = list(golden_rows(*shape))

    def problem(self, inputs: Inputs) -> str:
        """Return why a model of these inputs cannot be this tower's; empty where it can."""
        fits = list(inputs.values()) == [("FP32", self._shape)]
        return "" if fits else f"expected one input FP32 {list(self._shape)}, it has {inputs}"

    async def tensors(self, elements: Sequence[Pixels], inputs: Inputs) -> list[InferInput]:
        """Return rows as tensors."""
        (name,) = inputs
        return [_tensor(name, "FP32", np.stack(elements))]


def feed_of(served: ServedTower, max_batch: int) -> TextFeed | RowFeed:
    """Return what feeds the Triton model of a tower."""
    match served.tower:
        case TextTower() as tower:
            return TextFeed(tower)
        case TextHead():
            return RowFeed((served.input_dimensions,), max_batch)
        case PictureTower(preprocessing=wanted):
            return RowFeed((3, wanted.size, wanted.size), max_batch)


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
