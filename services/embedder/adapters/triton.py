"""Models run by Triton servers, over gRPC.

A server serves a repository written by `services.embedder.triton_repository`. Its vectors are those of the runtime in
process: each server has to show it, model by model, before it is asked for anything (see `triton_pool`).
"""

import asyncio
from collections.abc import Sequence
from typing import Generic, Self, TypeVar

import numpy as np

from services.common.batching import DynamicBatcher
from services.common.deadlines import deadline_in, remaining_seconds
from services.common.errors import DeadlineError
from services.common.vectors import Matrix
from services.embedder.adapters.triton_endpoint import Endpoint
from services.embedder.adapters.triton_pool import Patience, Pool, Wanted
from services.embedder.adapters.triton_tensors import feed_of
from services.embedder.catalogue import Catalogue, Model, PictureTower, TextHead, TextTower
from services.embedder.encoder import TensorEncoder, TextEncoder
from services.embedder.preprocessing import Pixels
from services.embedder.triton_repository.layout import IDENTITY, Tower, served_towers

E = TypeVar("E")


class TritonRuntime:
    """A `Runtime` of Triton servers; an async context manager, whose encoders work while it lasts."""

    identity = IDENTITY

    def __init__(
        self,
        models: Sequence[Model],
        endpoints: Sequence[str],
        patience: Patience,
        *,
        max_batch: int,
        reload: bool = False,
    ) -> None:
        """Ask `endpoints`, each host:port, for the towers of `models`, at most `max_batch` rows in a request."""
        catalogue = Catalogue(models, self.identity)
        towers = served_towers(models)
        wanted = [Wanted(each, feed_of(each, max_batch), catalogue.passport(each.model)) for each in towers]
        # Models may share a tower; any of its names will do.
        self._names: dict[Tower, str] = {each.tower: each.name for each in towers}
        self._patience = patience
        self._pool = Pool([Endpoint(address) for address in endpoints], wanted, patience, reload=reload)

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._pool.__aexit__(*error)

    def text_encoder(self, tower: TextTower) -> TextEncoder:
        """Return an encoder of texts."""
        return TritonTextEncoder(self._names[tower], tower.dimensions, self._pool, self._patience.call)

    def head_encoder(self, head: TextHead) -> TensorEncoder:
        """Return an encoder of text vectors."""
        return TritonTensorEncoder(self._names[head], head.dimensions, self._pool, self._patience.call)

    def picture_encoder(self, tower: PictureTower) -> TensorEncoder:
        """Return an encoder of pixels."""
        return TritonTensorEncoder(self._names[tower], tower.dimensions, self._pool, self._patience.call)


class _Encoder(Generic[E]):
    """Sends what concurrent calls want of one Triton model in common requests.

    Triton would batch too, but each request costs client and server half a millisecond: fewer of them leave more of
    both for the models.
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
        """Wait until a server runs the model, which Triton has warmed."""
        await self._pool.until_ready(self._name)

    async def _vectors(self, elements: Sequence[E]) -> Matrix:
        if not len(elements):
            return np.zeros((0, self._dimensions), np.float32)
        if not self._pool.met(self._name):
            await self.warm()
        with deadline_in(self._call_seconds):
            try:
                async with asyncio.timeout(remaining_seconds(self._call_seconds)):
                    return np.stack(await self._batcher.run(None, elements))
            except TimeoutError as error:
                raise DeadlineError("Triton did not answer in time", service="triton") from error

    async def _request(self, elements: Sequence[E]) -> Sequence[Matrix | Exception]:
        return list(await self._pool.vectors(self._name, elements, remaining_seconds(self._call_seconds)))


class TritonTextEncoder(_Encoder[str]):
    """A `TextEncoder` run by Triton."""

    async def encode(self, texts: Sequence[str]) -> Matrix:
        """Return the vectors of `texts`."""
        return await self._vectors(texts)


class TritonTensorEncoder(_Encoder[Pixels]):
    """A `TensorEncoder` run by Triton, which batches by itself: it needs no `BatchedEncoder` around it."""

    async def encode(self, rows: Pixels) -> Matrix:
        """Return the vectors of `rows`."""
        return await self._vectors(list(rows))
