"""Rows of concurrent calls, run together."""

import asyncio
from collections.abc import Sequence

import numpy as np

from services.common.batching import Batches
from services.common.detached import detached
from services.common.vectors import Matrix
from services.embedder.encoder import TensorEncoder
from services.embedder.preprocessing import Pixels


class BatchedEncoder:
    """A `TensorEncoder` that runs the rows of concurrent calls together, at most `max_batch` in a batch.

    Nothing waits for company: while fewer than `lanes` batches run, rows start at once; what comes meanwhile makes
    the next batch. Rows whose call was cancelled are left out.
    """

    def __init__(self, inner: TensorEncoder, *, max_batch: int, lanes: int) -> None:
        self._inner = inner
        self._batches: Batches[None, Pixels, Matrix] = Batches(
            lambda _, rows: detached(self._run(rows)), most=lambda _: max_batch, lanes=lanes
        )

    async def warm(self) -> None:
        """Get the inner encoder ready."""
        await self._inner.warm()

    async def encode(self, rows: Pixels) -> Matrix:
        """Return the vectors of `rows`, run in whichever batches they come to be in."""
        if not len(rows):
            return await self._inner.encode(rows)
        return np.stack(await asyncio.gather(*self._batches.submit(None, *rows)))

    async def _run(self, rows: Sequence[Pixels]) -> Sequence[Matrix | Exception]:
        return list(await self._inner.encode(np.stack(rows)))
