"""Many vectors searched for in one version of one space, piece by piece.

A piece takes about a tenth of a second, so that a batch holds a thread only that long, a cancelled one stops soon, and
no more than a piece's hits are in memory.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from services.common.concurrency.executors import BoundedExecutor
from services.common.errors import VersionExpiredError
from services.common.vectors import Matrix
from services.search.core.collection_index import CollectionIndex, ReadView, Search, SearchResult, SupportsReadViews
from services.search.core.errors import LeaseExpiredError
from services.search.query.requests import MAX_BATCH_VECTORS
from services.search.query.stream_buffer import StreamBuffer, open_buffer

MAX_CHUNK_VECTORS = 256
MAX_CHUNK_HITS = 2**18
CHUNK_SECONDS = 0.1

Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class Batch:
    """A search for many vectors: matrices that come one after the other."""

    collection: str
    search: Search
    vectors: AsyncIterator[Matrix]


class BatchSearcher:
    """Searches for batches in threads of their own, as many pieces of a batch at a time as there are threads."""

    def __init__(self, executor: BoundedExecutor) -> None:
        self._executor = executor

    async def search(
        self, index: CollectionIndex, batch: Batch, serialize: Callable[[Sequence[SearchResult]], Sequence[Response]]
    ) -> AsyncGenerator[Response]:
        """Yield what `serialize`, run in a thread, makes of what each piece of the batch finds, in order.

        Raises what its vectors raise, and:
            VersionExpiredError: so much was written meanwhile that the version could not be kept.
        """
        with _open_view(index, batch.collection) as version:
            chunk_size = AdaptiveChunkSize(batch.search.top_k, divisible=isinstance(index, SupportsReadViews))
            async with open_buffer(batch.vectors, chunk_size.buffered * self._executor.threads) as buffer:
                work = partial(_search_chunk, version, batch.search, chunk_size, serialize)
                async with aclosing(self._responses(buffer, chunk_size, work)) as responses:
                    async for response in responses:
                        for each in response:
                            yield each

    async def _responses(
        self, buffer: StreamBuffer, chunk_size: "AdaptiveChunkSize", work: Callable[[Matrix], Sequence[Response]]
    ) -> AsyncGenerator[Sequence[Response]]:
        """Yield what `work` makes of each piece, in order, as soon as it has and those before were yielded."""
        taking: asyncio.Task[Matrix | None] | None = asyncio.create_task(
            buffer.take(chunk_size.size, chunk_size.min_size)
        )
        running: deque[asyncio.Task[Sequence[Response]]] = deque()
        try:
            while taking or running:
                await _wait_any(
                    [*([taking] if taking and len(running) < self._executor.threads else []), *list(running)[:1]]
                )
                if taking and taking.done():
                    queries = taking.result()
                    taking = None
                    if queries is not None:
                        running.append(asyncio.create_task(self._executor.run(work, queries)))
                        taking = asyncio.create_task(buffer.take(chunk_size.size, chunk_size.min_size))
                if running and running[0].done():
                    yield running.popleft().result()
        finally:
            await _cancel([*([taking] if taking else []), *running])


async def _wait_any(futures: Sequence[asyncio.Future[Any]]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _cancel(futures: Sequence[asyncio.Future[Any]]) -> None:
    """End what nobody waits for any more; what a thread has begun it ends by itself."""
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)


class AdaptiveChunkSize:
    """How large the next piece is to be; what is not `divisible` is searched for at once."""

    def __init__(self, top_k: int, *, divisible: bool) -> None:
        self._max_size = max(1, min(MAX_CHUNK_VECTORS, MAX_CHUNK_HITS // top_k)) if divisible else MAX_BATCH_VECTORS
        self.size = max(1, self._max_size // 4) if divisible else self._max_size
        self.min_size = 1 if divisible else self._max_size
        self.buffered = 2 * self._max_size

    def record(self, vectors: int, seconds: float) -> None:
        """Learn that a piece of so many vectors took so long."""
        if seconds > CHUNK_SECONDS:
            self.size = max(1, vectors // 2, self.min_size)
        elif vectors == self.size and seconds < CHUNK_SECONDS / 2:
            self.size = min(self._max_size, 2 * self.size)


@contextmanager
def _open_view(index: CollectionIndex, collection: str) -> Iterator[CollectionIndex | ReadView]:
    """Yield one version of `index` if it can keep one, else itself."""
    if not isinstance(index, SupportsReadViews):
        yield index
        return
    version = index.open_view()
    try:
        yield version
    except LeaseExpiredError as error:
        raise VersionExpiredError(collection, str(version.version)) from error
    finally:
        version.release()


def _search_chunk(
    version: CollectionIndex | ReadView,
    search: Search,
    chunk_size: AdaptiveChunkSize,
    serialize: Callable[[Sequence[SearchResult]], Sequence[Response]],
    queries: Matrix,
) -> Sequence[Response]:
    begin = time.perf_counter()
    response = serialize(version.search(search, queries))
    chunk_size.record(len(queries), time.perf_counter() - begin)
    return response
