"""Encoders whose work the test holds in its hands."""

import asyncio
from collections.abc import Sequence

import numpy as np

from services.common.vectors import Matrix
from services.embedder.core.preprocessing import Pixels


class HeldTensorEncoder:
    """A `TensorEncoder` that answers with its rows, once `gate` is open, and remembers what it was given."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.batches: list[list[float]] = []
        self.error: Exception | None = None

    async def warm(self) -> None:
        pass

    async def encode(self, rows: Pixels) -> Matrix:
        self.batches.append(rows[:, 0].tolist())
        await self.gate.wait()
        if self.error:
            raise self.error
        return rows


class HeldTextEncoder:
    """A `TextEncoder` that answers with the length of each text, once `gate` is open, and remembers its calls."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.given: list[list[str]] = []
        self.cancelled = 0
        self.error: Exception | None = None

    async def warm(self) -> None:
        pass

    async def encode(self, texts: Sequence[str]) -> Matrix:
        self.given.append(list(texts))
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return np.array([[len(text)] for text in texts], np.float32).reshape(len(texts), 1)


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)
