"""Encoders that need no weights: for tests, and to try a deployment without a model.

A text's vector is a histogram of its words, a picture's one of its colours; the two are not comparable.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Sequence

import numpy as np

from services.common.vectors import Matrix
from services.embedder.core.catalog import ImageTower, TextProjection, TextTower
from services.embedder.core.encoder import TensorEncoder, TextEncoder
from services.embedder.core.preprocessing import Pixels

SHADES = 4
"""Levels of each colour channel in a histogram."""

_WORD = re.compile(r"\w+|[^\w\s]")


class MemoryRuntime:
    """A `Runtime` whose encoders count words and colours."""

    identity = "memory 1"

    def text_encoder(self, tower: TextTower) -> TextEncoder:
        return MemoryTextEncoder(tower.dimensions, tower.max_tokens)

    def projection_encoder(self, projection: TextProjection) -> TensorEncoder:
        return MemoryTensorEncoder(lambda vector: _fold(vector, projection.dimensions), projection.dimensions)

    def image_encoder(self, tower: ImageTower) -> TensorEncoder:
        preprocessing, dimensions = tower.preprocessing, tower.dimensions
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
        return MemoryTensorEncoder(lambda pixels: _fold(_histogram(pixels * std + mean), dimensions), dimensions)


class MemoryTextEncoder:
    """A `TextEncoder` that counts words, each in the dimension given by its hash."""

    def __init__(self, dimensions: int, max_tokens: int) -> None:
        self._dimensions = dimensions
        self._max_tokens = max_tokens

    async def warm(self) -> None:
        pass

    async def encode(self, texts: Sequence[str]) -> Matrix:
        vectors = [self._vector(text) for text in texts]
        return _stack(vectors, self._dimensions)

    def _vector(self, text: str) -> Matrix:
        words = _WORD.findall(text.lower())[: self._max_tokens]
        positions = [_hash(word) % self._dimensions for word in words]
        return _unit(np.bincount(positions or [0], minlength=self._dimensions))


class MemoryTensorEncoder:
    """A `TensorEncoder` that applies a function to each row."""

    def __init__(self, vector: Callable[[Pixels], Matrix], dimensions: int) -> None:
        self._vector = vector
        self._dimensions = dimensions

    async def warm(self) -> None:
        pass

    async def encode(self, rows: Pixels) -> Matrix:
        return await asyncio.to_thread(lambda: _stack([self._vector(row) for row in rows], self._dimensions))


def _stack(vectors: Sequence[Matrix], dimensions: int) -> Matrix:
    return np.stack(vectors) if vectors else np.zeros((0, dimensions), np.float32)


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())


def _histogram(channels: Pixels) -> Matrix:
    """Count the colours of a picture, shape (3, height, width), values 0 to 1; shape (SHADES ** 3,)."""
    levels = np.clip((channels * SHADES).astype(int), 0, SHADES - 1)
    colours = (levels[0] * SHADES + levels[1]) * SHADES + levels[2]
    return np.bincount(colours.ravel(), minlength=SHADES**3).astype(np.float32)


def _fold(counts: Matrix, dimensions: int) -> Matrix:
    """Return `counts`, none negative, summed by index modulo `dimensions`, normalised to length 1."""
    return _unit(np.bincount(np.arange(len(counts)) % dimensions, weights=counts, minlength=dimensions))


def _unit(counts: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Matrix:
    vector = counts.astype(np.float32)
    unit: Matrix = vector / np.linalg.norm(vector)
    return unit
