"""Encoders that need no weights: for tests, and to try a set-up without a model.

Their vectors say which words a text has and which colours a picture has; nothing more, and nothing across the two.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Sequence

import numpy as np

from services.common.vectors import Matrix
from services.embedder.core.catalog import PictureTower, TextHead, TextTower
from services.embedder.core.encoder import TensorEncoder, TextEncoder
from services.embedder.core.preprocessing import Pixels

SHADES = 4
"""Levels that a histogram tells apart in each channel."""

_WORD = re.compile(r"\w+|[^\w\s]")


class MemoryRuntime:
    """A `Runtime` of words counted and colours counted."""

    identity = "memory 1"

    def text_encoder(self, tower: TextTower) -> TextEncoder:
        """Return an encoder that counts words."""
        return MemoryTextEncoder(tower.dimensions, tower.max_tokens)

    def head_encoder(self, head: TextHead) -> TensorEncoder:
        """Return an encoder that adds up places."""
        return MemoryTensorEncoder(lambda vector: _folded(vector, head.dimensions), head.dimensions)

    def picture_encoder(self, tower: PictureTower) -> TensorEncoder:
        """Return an encoder that counts colours."""
        wanted, dimensions = tower.preprocessing, tower.dimensions
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (wanted.mean, wanted.std))
        return MemoryTensorEncoder(lambda pixels: _folded(_histogram(pixels * std + mean), dimensions), dimensions)


class MemoryTextEncoder:
    """A `TextEncoder` that counts words, each in the place that its hash names."""

    def __init__(self, dimensions: int, max_tokens: int) -> None:
        self._dimensions = dimensions
        self._max_tokens = max_tokens

    async def warm(self) -> None:
        """Do nothing: it is ready."""

    async def encode(self, texts: Sequence[str]) -> Matrix:
        """Return the counts of each text's words, at length 1."""
        vectors = [self._vector(text) for text in texts]
        return _stacked(vectors, self._dimensions)

    def _vector(self, text: str) -> Matrix:
        words = _WORD.findall(text.lower())[: self._max_tokens]
        places = [_hash(word) % self._dimensions for word in words]
        return _unit(np.bincount(places or [0], minlength=self._dimensions))


class MemoryTensorEncoder:
    """A `TensorEncoder` that applies a function to each row."""

    def __init__(self, vector: Callable[[Pixels], Matrix], dimensions: int) -> None:
        self._vector = vector
        self._dimensions = dimensions

    async def warm(self) -> None:
        """Do nothing: it is ready."""

    async def encode(self, rows: Pixels) -> Matrix:
        """Return the function's value for each row."""
        return await asyncio.to_thread(lambda: _stacked([self._vector(row) for row in rows], self._dimensions))


def _stacked(vectors: Sequence[Matrix], dimensions: int) -> Matrix:
    return np.stack(vectors) if vectors else np.zeros((0, dimensions), np.float32)


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())


def _histogram(channels: Pixels) -> Matrix:
    """Count the colours of a picture, shape (3, height, width), values 0 to 1; shape (SHADES ** 3,)."""
    levels = np.clip((channels * SHADES).astype(int), 0, SHADES - 1)
    colours = (levels[0] * SHADES + levels[1]) * SHADES + levels[2]
    return np.bincount(colours.ravel(), minlength=SHADES**3).astype(np.float32)


def _folded(counts: Matrix, dimensions: int) -> Matrix:
    """Return `counts`, none negative, added up by place modulo `dimensions`, at length 1."""
    return _unit(np.bincount(np.arange(len(counts)) % dimensions, weights=counts, minlength=dimensions))


def _unit(counts: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Matrix:
    vector = counts.astype(np.float32)
    unit: Matrix = vector / np.linalg.norm(vector)
    return unit
