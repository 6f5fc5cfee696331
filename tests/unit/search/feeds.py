"""Collections to follow, and a feed that fails when told to."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

import numpy as np

from services.common.deadlines import remaining_seconds
from services.common.errors import ServiceUnavailableError
from services.common.filters import Filter
from services.common.rpc.client import STREAM_SECONDS
from services.common.vectors import Matrix, Metric
from services.common.versions import Version
from services.search.collection.collection import LocalCollectionIndex
from services.search.core.change_feed import ChangeBatch, Space, SpaceVectors, Table
from services.search.core.collection_index import CollectionIndex, Search, SearchResult
from services.search.engines.memory.vector_index import MemoryIndex
from tests.support.change_feed import MemoryChangeFeed

PHOTOS = "collections/photos"
FLAT = Space("flat", 2, Metric.EUCLIDEAN, "made by hand")
DEEP = Space("deep", 3, Metric.COSINE)
ORIGIN = np.zeros(2, np.float32)


def make_index(table: Table) -> LocalCollectionIndex:
    return LocalCollectionIndex(table.spaces, lambda space: MemoryIndex(space.dimensions, space.metric))


def batch(items: Mapping[str, float], *, deleted: Sequence[str] = (), metadata: str = "{}") -> ChangeBatch:
    """Items at (x, 0) in the space "flat"."""
    vectors = np.array([[x, 0] for x in items.values()], np.float32).reshape(-1, 2)
    found = {"flat": SpaceVectors(np.arange(len(items)), vectors)}
    return ChangeBatch(list(items), [metadata] * len(items), found, deleted)


class WeakFeed:
    """A feed over another: down when told, its streams break after some parts, and it may not hear of drops.

    Before a stream breaks it may yield a `stray` part, of a change that is another when the stream resumes.
    """

    def __init__(self, feed: MemoryChangeFeed) -> None:
        self.feed = feed
        self.down = False
        self.deaf = False
        self.parts_to_come: int | None = None
        self.error: Exception = ServiceUnavailableError("store")
        self.stray: ChangeBatch | None = None
        self.resumed_after: list[Version | None] = []
        self.stream_seconds: list[float] = []

    async def tables(self) -> list[Table]:
        self._fail_if(self.down)
        return await self.feed.tables()

    async def table(self, collection: str) -> Table:
        self._fail_if(self.down)
        return await self.feed.table(collection)

    async def changes(self, collection: str, after: Version | None) -> AsyncIterator[ChangeBatch]:
        self._fail_if(self.down)
        self.resumed_after.append(after)
        self.stream_seconds.append(remaining_seconds(STREAM_SECONDS))
        deaf = self.deaf
        stream = self.feed.changes(collection, after)
        while not (deaf and collection not in [table.collection for table in await self.feed.tables()]):
            try:
                found = await anext(stream)
            except Exception:
                if not deaf:
                    raise
                break
            if self.stray is not None:
                stray, self.stray = self.stray, None
                yield stray
            self._fail_if(self.down or self.parts_to_come == 0)
            if self.parts_to_come is not None:
                self.parts_to_come -= 1
            yield found
        await asyncio.Event().wait()

    def _fail_if(self, failing: bool) -> None:
        if failing:
            self.parts_to_come = None
            raise self.error


def found_by(
    index: CollectionIndex,
    space: str,
    query: Matrix,
    top_k: int,
    condition: Filter | None = None,
    *,
    ids: Iterable[str] = (),
) -> SearchResult:
    (found,) = index.search(Search(space, top_k, condition, frozenset(ids)), query[None])
    return found
