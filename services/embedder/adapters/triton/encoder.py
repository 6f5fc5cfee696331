"""Models run by Triton servers, over gRPC.

A server serves a repository written by `services.embedder.triton_repository`. Its vectors equal those of the ONNX
runtime; `endpoint` verifies that for each model of each server before it is used.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import numpy as np

from services.common.concurrency.dynamic_batcher import DynamicBatcher
from services.common.deadlines import deadline_in, remaining_seconds
from services.common.errors import DeadlineError
from services.common.vectors import Matrix
from services.embedder.adapters.triton.client import TritonClient
from services.embedder.adapters.triton.endpoint import ExpectedModel, Timeouts
from services.embedder.adapters.triton.inputs import input_builder
from services.embedder.adapters.triton.layout import IDENTITY, ServedTower, Tower, served_towers
from services.embedder.adapters.triton.pool import Pool
from services.embedder.core.catalog import ImageTower, Model, ModelCatalog, TextProjection, TextTower
from services.embedder.core.encoder import TensorEncoder, TextEncoder
from services.embedder.core.preprocessing import Pixels

E = TypeVar("E")


@asynccontextmanager
async def triton_runtime(
    models: Sequence[Model], endpoints: Sequence[str], timeouts: Timeouts, *, max_batch: int, reload: bool
) -> AsyncIterator["TritonRuntime"]:
    """Yield a runtime that runs the towers of `models` on the servers `endpoints`, each host:port.

    A request has at most `max_batch` rows. With `reload`, a model whose backend is dead is unloaded and loaded.
    """
    catalog = ModelCatalog(models, IDENTITY)
    towers = served_towers(models)
    expected = [ExpectedModel(each, input_builder(each, max_batch), catalog.fingerprint(each.model)) for each in towers]
    pool = Pool([TritonClient(address) for address in endpoints], expected, timeouts, reload=reload)
    async with pool.watch():
        yield TritonRuntime(pool, towers, timeouts.call)


class TritonRuntime:
    """A `Runtime` of Triton servers; its encoders work while its pool is being watched."""

    identity = IDENTITY

    def __init__(self, pool: Pool, towers: Sequence[ServedTower], call_seconds: float) -> None:
        """`call_seconds` limits a request whose caller sets no deadline."""
        self._pool = pool
        # Models may share a tower; any of its names is right.
        self._names: dict[Tower, str] = {each.tower: each.name for each in towers}
        self._call_seconds = call_seconds

    def text_encoder(self, tower: TextTower) -> TextEncoder:
        return TritonTextEncoder(self._names[tower], tower.dimensions, self._pool, self._call_seconds)

    def projection_encoder(self, projection: TextProjection) -> TensorEncoder:
        return TritonTensorEncoder(self._names[projection], projection.dimensions, self._pool, self._call_seconds)

    def image_encoder(self, tower: ImageTower) -> TensorEncoder:
        return TritonTensorEncoder(self._names[tower], tower.dimensions, self._pool, self._call_seconds)


class _Encoder(Generic[E]):
    """Batches the inputs of concurrent calls into requests for one Triton model.

    Triton batches too, but each request costs client and server half a millisecond, so fewer requests leave more time
    for inference.
    """

    def __init__(self, name: str, dimensions: int, pool: Pool, call_seconds: float) -> None:
        self._name = name
        self._dimensions = dimensions
        self._pool = pool
        self._call_seconds = call_seconds
        self._batcher: DynamicBatcher[None, E, Matrix] = DynamicBatcher(
            lambda _, elements: asyncio.ensure_future(self._request(elements)),
            lambda _: pool.policy(name),
            cancel_abandoned=True,
        )

    async def warm(self) -> None:
        # Triton runs its warm-up before a model is ready.
        await self._pool.until_ready(self._name)

    async def _vectors(self, elements: Sequence[E]) -> Matrix:
        if not len(elements):
            return np.zeros((0, self._dimensions), np.float32)
        if not self._pool.ever_ready(self._name):
            await self.warm()
        with deadline_in(self._call_seconds):
            try:
                async with asyncio.timeout(remaining_seconds(self._call_seconds)):
                    return np.stack(await self._batcher.run(None, elements))
            except TimeoutError as error:
                raise DeadlineError("Triton did not answer in time", service="triton") from error

    async def _request(self, elements: Sequence[E]) -> Sequence[Matrix | Exception]:
        return list(await self._pool.infer(self._name, elements, remaining_seconds(self._call_seconds)))


class TritonTextEncoder(_Encoder[str]):
    """A `TextEncoder` run by Triton."""

    async def encode(self, texts: Sequence[str]) -> Matrix:
        return await self._vectors(texts)


class TritonTensorEncoder(_Encoder[Pixels]):
    """A `TensorEncoder` run by Triton; it batches by itself and needs no `BatchedEncoder` around it."""

    async def encode(self, rows: Pixels) -> Matrix:
        return await self._vectors(list(rows))
