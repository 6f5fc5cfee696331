"""Dynamic batching of the rows of concurrent calls."""

import asyncio
from collections.abc import Sequence

import numpy as np

from services.common.concurrency.dynamic_batcher import BatchPolicy, DynamicBatcher
from services.common.vectors import Matrix
from services.embedder.core.encoder import TensorEncoder
from services.embedder.core.preprocessing import Pixels


class BatchedEncoder:
    """A `TensorEncoder` that runs the rows of concurrent calls together, in batches limited by `policy`."""

    def __init__(self, inner: TensorEncoder, policy: BatchPolicy) -> None:
        self._inner = inner
        self._batcher: DynamicBatcher[None, Pixels, Matrix] = DynamicBatcher(
            lambda _, rows: asyncio.ensure_future(self._run(rows)), lambda _: policy, cancel_abandoned=False
        )

    async def warm(self) -> None:
        await self._inner.warm()

    async def encode(self, rows: Pixels) -> Matrix:
        if not len(rows):
            return await self._inner.encode(rows)
        return np.stack(await self._batcher.run(None, list(rows)))

    async def _run(self, rows: Sequence[Pixels]) -> Sequence[Matrix | Exception]:
        return list(await self._inner.encode(np.stack(rows)))
