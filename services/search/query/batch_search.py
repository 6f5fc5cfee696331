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
from services.search.query.stream_buffer import StreamBuffer, arriving

PIECE_VECTORS = 256
PIECE_HITS = 2**18
PIECE_SECONDS = 0.1

Told = TypeVar("Told")


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

    async def rankings(
        self, index: CollectionIndex, batch: Batch, tell: Callable[[Sequence[SearchResult]], Sequence[Told]]
    ) -> AsyncGenerator[Told]:
        """Yield what `tell`, run in a thread, makes of what each piece of the batch finds, in order.

        Raises what its vectors raise, and:
            VersionExpiredError: so much was written meanwhile that the version could not be kept.
        """
        with _kept(index, batch.collection) as version:
            pace = AdaptiveChunkSize(batch.search.top_k, divisible=isinstance(index, SupportsReadViews))
            async with arriving(batch.vectors, pace.ahead * self._executor.threads) as arrivals:
                work = partial(_told, version, batch.search, pace, tell)
                async with aclosing(self._answers(arrivals, pace, work)) as answers:
                    async for told in answers:
                        for each in told:
                            yield each

    async def _answers(
        self, arrivals: StreamBuffer, pace: "AdaptiveChunkSize", work: Callable[[Matrix], Sequence[Told]]
    ) -> AsyncGenerator[Sequence[Told]]:
        """Yield what `work` makes of each piece, in order, as soon as it has and those before were yielded."""
        taking: asyncio.Task[Matrix | None] | None = asyncio.create_task(arrivals.take(pace.size, pace.at_least))
        running: deque[asyncio.Task[Sequence[Told]]] = deque()
        try:
            while taking or running:
                await _any(
                    [*([taking] if taking and len(running) < self._executor.threads else []), *list(running)[:1]]
                )
                if taking and taking.done():
                    queries = taking.result()
                    taking = None
                    if queries is not None:
                        running.append(asyncio.create_task(self._executor.run(work, queries)))
                        taking = asyncio.create_task(arrivals.take(pace.size, pace.at_least))
                if running and running[0].done():
                    yield running.popleft().result()
        finally:
            await _ended([*([taking] if taking else []), *running])


async def _any(futures: Sequence[asyncio.Future[Any]]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _ended(futures: Sequence[asyncio.Future[Any]]) -> None:
    """End what nobody waits for any more; what a thread has begun it ends by itself."""
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)


class AdaptiveChunkSize:
    """How large the next piece is to be; what is not `divisible` is searched for at once."""

    def __init__(self, top_k: int, *, divisible: bool) -> None:
        self._most = max(1, min(PIECE_VECTORS, PIECE_HITS // top_k)) if divisible else MAX_BATCH_VECTORS
        self.size = max(1, self._most // 4) if divisible else self._most
        self.at_least = 1 if divisible else self._most
        self.ahead = 2 * self._most

    def took(self, vectors: int, seconds: float) -> None:
        """Learn that a piece of so many vectors took so long."""
        if seconds > PIECE_SECONDS:
            self.size = max(1, vectors // 2, self.at_least)
        elif vectors == self.size and seconds < PIECE_SECONDS / 2:
            self.size = min(self._most, 2 * self.size)


@contextmanager
def _kept(index: CollectionIndex, collection: str) -> Iterator[CollectionIndex | ReadView]:
    """Yield one version of `index` if it can keep one, else itself."""
    if not isinstance(index, SupportsReadViews):
        yield index
        return
    version = index.keep()
    try:
        yield version
    except LeaseExpiredError as error:
        raise VersionExpiredError(collection, str(version.version)) from error
    finally:
        version.release()


def _told(
    version: CollectionIndex | ReadView,
    search: Search,
    pace: AdaptiveChunkSize,
    tell: Callable[[Sequence[SearchResult]], Sequence[Told]],
    queries: Matrix,
) -> Sequence[Told]:
    begin = time.perf_counter()
    told = tell(version.search(search, queries))
    pace.took(len(queries), time.perf_counter() - begin)
    return told
