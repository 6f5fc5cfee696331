"""Many vectors searched for in one version of one space, piece by piece.

A piece takes about a tenth of a second, so that a batch holds a thread only that long, a cancelled one stops soon, and
no more than a piece's hits are in memory.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from services.common.vectors import Matrix
from services.search.arrivals import arriving
from services.search.collection_index import CollectionIndex, Found, KeepsVersions, KeptVersion, Search
from services.search.errors import KeepLapsedError, VersionExpiredError
from services.search.queries import MAX_BATCH_VECTORS

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


async def rankings(
    pool: Executor, index: CollectionIndex, batch: Batch, tell: Callable[[Sequence[Found]], Sequence[Told]]
) -> AsyncGenerator[Told]:
    """Yield what `tell`, run in a thread of `pool`, makes of what each piece of the batch finds, in order.

    Raises what its vectors raise, and:
        VersionExpiredError: so much was written meanwhile that the version could not be kept.
    """
    loop = asyncio.get_running_loop()
    with _kept(index, batch.collection) as version:
        pace = _Pace(batch.search.top_k, divisible=isinstance(index, KeepsVersions))
        async with arriving(batch.vectors, pace.ahead) as arrivals:
            while (queries := await arrivals.take(pace.size, pace.at_least)) is not None:
                begin = time.perf_counter()
                answers = await loop.run_in_executor(pool, _told, version, batch.search, queries, tell)
                pace.took(len(queries), time.perf_counter() - begin)
                for answer in answers:
                    yield answer


class _Pace:
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
def _kept(index: CollectionIndex, collection: str) -> Iterator[CollectionIndex | KeptVersion]:
    """Yield one version of `index` if it can keep one, else itself."""
    if not isinstance(index, KeepsVersions):
        yield index
        return
    version = index.keep()
    try:
        yield version
    except KeepLapsedError as error:
        raise VersionExpiredError(collection, str(version.version)) from error
    finally:
        version.release()


def _told(
    version: CollectionIndex | KeptVersion,
    search: Search,
    queries: Matrix,
    tell: Callable[[Sequence[Found]], Sequence[Told]],
) -> Sequence[Told]:
    return tell(version.search(search, queries))
