"""Rows of concurrent calls, run together."""

import asyncio
from collections import deque
from dataclasses import dataclass

import numpy as np

from services.common.vectors import Matrix
from services.embedder.detached import detached
from services.embedder.encoder import TensorEncoder
from services.embedder.preprocessing import Pixels


@dataclass(frozen=True, slots=True)
class _Row:
    """A row that waits for its vector."""

    numbers: Pixels
    vector: asyncio.Future[Matrix]


class BatchedEncoder:
    """A `TensorEncoder` that runs the rows of concurrent calls together, at most `max_batch` in a batch.

    Nothing waits for company: while fewer than `lanes` batches run, rows start at once; what comes meanwhile makes
    the next batch. Rows whose call was cancelled are left out.
    """

    def __init__(self, inner: TensorEncoder, *, max_batch: int, lanes: int) -> None:
        self._inner = inner
        self._max_batch = max_batch
        self._free_lanes = lanes
        self._waiting: deque[_Row] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def warm(self) -> None:
        """Get the inner encoder ready."""
        await self._inner.warm()

    async def encode(self, rows: Pixels) -> Matrix:
        """Return the vectors of `rows`, run in whichever batches they come to be in."""
        if not len(rows):
            return await self._inner.encode(rows)
        loop = asyncio.get_running_loop()
        waiting = [_Row(row, loop.create_future()) for row in rows]
        self._waiting.extend(waiting)
        self._fill_lanes()
        return np.stack(await asyncio.gather(*(row.vector for row in waiting)))

    def _fill_lanes(self) -> None:
        while self._free_lanes and (batch := self._next_batch()):
            self._free_lanes -= 1
            task = detached(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _next_batch(self) -> list[_Row]:
        batch: list[_Row] = []
        while self._waiting and len(batch) < self._max_batch:
            row = self._waiting.popleft()
            if not row.vector.done():
                batch.append(row)
        return batch

    async def _run(self, batch: list[_Row]) -> None:
        try:
            _answer(batch, await self._inner.encode(np.stack([row.numbers for row in batch])))
        except asyncio.CancelledError:
            _cancel(batch)
            raise
        except Exception as error:  # handed to every caller of the batch, each of which raises it
            _refuse(batch, error)
        finally:
            self._free_lanes += 1
            self._fill_lanes()


def _answer(batch: list[_Row], vectors: Matrix) -> None:
    for row, vector in zip(batch, vectors, strict=True):
        if not row.vector.done():
            row.vector.set_result(vector)


def _cancel(batch: list[_Row]) -> None:
    for row in batch:
        row.vector.cancel()


def _refuse(batch: list[_Row], error: Exception) -> None:
    for row in batch:
        if not row.vector.done():
            row.vector.set_exception(error)
