"""What the search service does, free of any transport or engine."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from services.common.concurrency.executors import BoundedExecutor
from services.common.concurrency.limiter import ConcurrencyLimiter
from services.common.deadlines import remaining_seconds
from services.common.errors import ArgumentError
from services.common.names import validate_collection_name, validate_space_name
from services.common.paging import decode_page_token, encode_page_token, validate_page_size
from services.common.vectors import Matrix
from services.common.versions import Version
from services.search.core.change_feed import Space
from services.search.core.collection_index import CollectionIndex, SearchResult
from services.search.core.errors import VersionNotReachedError
from services.search.query.batch_search import Batch, BatchSearcher
from services.search.query.cursors import Cursors
from services.search.query.dynamic_batching import SearchBatcher
from services.search.query.metrics import Metrics
from services.search.query.requests import MAX_BATCH_VECTORS, Encoded, Options, Query, decoded_vectors
from services.search.replication.replica import Replica
from services.search.replication.replicas import Replicas
from services.search.replication.status import IndexReport, index_reports

DECODED_AT_ONCE_BYTES = 2**16
_WAITING_SHARE = 0.9  # of the time there is, so that the refusal arrives before the caller has given up

Told = TypeVar("Told")


class Searcher:
    """Searches the indexes that follow the store. What it answers is told by its callers' words, in a thread."""

    def __init__(
        self,
        followers: Replicas,
        *,
        merged: SearchBatcher,
        cursors: Cursors,
        bulk: BatchSearcher,
        executor: BoundedExecutor,
        searches: ConcurrencyLimiter,
        batches: ConcurrencyLimiter,
        wait_seconds: float,
        meter: Metrics,
    ) -> None:
        """`executor` does what takes longer than single searches, which do not wait for it."""
        self._followers = followers
        self._merged = merged
        self._cursors = cursors
        self._bulk = bulk
        self._executor = executor
        self._searches = searches
        self._batches = batches
        self._wait_seconds = wait_seconds
        self._meter = meter

    async def search(self, query: Query, tell: Callable[[SearchResult, str], Told]) -> Told:
        """Return what `tell` makes of the items nearest to the query's vector, and of the token of the next page.

        Raises:
            ArgumentError: a name or number is not allowed.
            CollectionNotFoundError: no such collection.
            SpaceNotFoundError: it has no such space.
            DimensionError: the vector's length is not the space's.
            VectorError: the space's metric cannot compare it.
            FingerprintError: other weights, runtime or preprocessing made it.
            TokenError: the page token is none, or of another search.
            VersionUnknownError: the version is of a collection since dropped.
            VersionExpiredError: the version of the pages before is no longer kept.
            VersionNotReachedError: the index does not hold the version in time.
            OverloadedError: too many searches are under way, or too many rankings are read in pages.
        """
        options, search = query.options, query.options.checked()
        tell = _noting(self._meter, options, tell)
        with self._searches.admit():
            if query.page_token:
                follower = await self._followers.follower(options.collection)
                newest = follower.index.version if follower.index else None
                return await self._cursors.next(newest, search, query, tell)
            index = await self._index(options.collection, options.version)
            query.check_vector(index.space(search.space))
            if query.paged:
                return await self._cursors.first(index, search, query, tell)
            return await self._merged.search(index, search, query.vector, lambda found: tell(found, ""))

    async def search_batch(
        self, parts: AsyncIterator[Options | Encoded], tell: Callable[[Sequence[SearchResult]], Sequence[Told]]
    ) -> AsyncIterator[Told]:
        """Yield what `tell` makes of what each vector of `parts` finds, in their order, all in one version.

        The options come first; vectors are searched for as they come. Raises as `search` does, and:
            BatchDimensionError: a vector's length is not the space's.
            BatchVectorError: the space's metric cannot compare a vector.
        """
        options = await _first(parts)
        search = options.checked()
        tell = _noting_batch(self._meter, options, tell)
        with self._batches.admit(), self._searches.admit():
            index = await self._index(options.collection, options.version)
            space = index.space(search.space)
            options.check_fingerprint(space)
            batch = Batch(options.collection, search, _vectors(parts, space, search.top_k))
            async with aclosing(self._bulk.rankings(index, batch, tell)) as answers:
                async for answer in answers:
                    yield answer

    async def list_indexes(self, wanted: int, token: str) -> tuple[Sequence[IndexReport], str]:
        """Return a page of the indexes, by collection and space, and the token of the next, "" after the last.

        Raises:
            ArgumentError: the page size is not allowed.
            TokenError: the token cannot be read.
        """
        size, before = validate_page_size(wanted), decode_page_token(token)
        reports = await asyncio.to_thread(index_reports, self._followers.all())
        page = [report for report in reports if before is None or report.key > before][: size + 1]
        return page[:size], encode_page_token(page[size - 1].key) if len(page) > size else ""

    async def item_ids(self, collection: str, space: str, version: Version | None) -> tuple[Sequence[str], Version]:
        """Return the ids of all items with a vector in a space, once the index holds `version`, and the one it holds.

        Raises as `search` does.
        """
        validate_collection_name(collection)
        validate_space_name(space)
        with self._searches.admit():
            index = await self._index(collection, version)
            return await self._executor.run(index.item_ids, space)

    async def rebuild(self, collection: str) -> Version:
        """Build the indexes of a collection anew; return the version they hold once they replace the old ones.

        Raises:
            ArgumentError: the name is not allowed.
            CollectionNotFoundError: no such collection.
        """
        follower = await self._followers.follower(validate_collection_name(collection))
        return await follower.rebuilt()

    async def _index(self, collection: str, version: Version | None) -> CollectionIndex:
        follower = await self._followers.follower(collection)
        if follower.index is not None and _holds(follower.index, version):
            return follower.index
        try:
            async with asyncio.timeout(remaining_seconds(self._wait_seconds) * _WAITING_SHARE):
                return await follower.reached(version)
        except TimeoutError as error:
            raise VersionNotReachedError(collection, _spelt(version), _applied(follower)) from error


def _noting(
    meter: Metrics, options: Options, tell: Callable[[SearchResult, str], Told]
) -> Callable[[SearchResult, str], Told]:
    began = time.perf_counter()

    def noting(found: SearchResult, next_page_token: str) -> Told:
        meter.searched(options.collection, options.space, found, time.perf_counter() - began)
        return tell(found, next_page_token)

    return noting


def _noting_batch(
    meter: Metrics, options: Options, tell: Callable[[Sequence[SearchResult]], Sequence[Told]]
) -> Callable[[Sequence[SearchResult]], Sequence[Told]]:
    def noting(found: Sequence[SearchResult]) -> Sequence[Told]:
        meter.searched_in_batch(options.collection, options.space, found)
        return tell(found)

    return noting


async def _first(parts: AsyncIterator[Options | Encoded]) -> Options:
    first = await anext(parts, None)
    if not isinstance(first, Options):
        raise ArgumentError("options", "", "must come first, before any vectors")
    return first


async def _vectors(parts: AsyncIterator[Options | Encoded], space: Space, top_k: int) -> AsyncIterator[Matrix]:
    place = 0
    async for part in parts:
        if isinstance(part, Options):
            raise ArgumentError("options", part.collection, "must come once, before all vectors")
        vectors = await _decoded(part, space, place, top_k)
        place += len(vectors)
        yield vectors
    if not place:
        raise ArgumentError("vectors", 0, f"there must be 1 to {MAX_BATCH_VECTORS}")


async def _decoded(part: Encoded, space: Space, place: int, top_k: int) -> Matrix:
    if len(part) <= DECODED_AT_ONCE_BYTES:
        return decoded_vectors(part, space, place, top_k)
    return await asyncio.to_thread(decoded_vectors, part, space, place, top_k)


def _holds(index: CollectionIndex, version: Version | None) -> bool:
    applied = index.version
    if applied is None or version is None:
        return applied is not None
    return applied.uid == version.uid and applied.number >= version.number


def _applied(follower: Replica) -> str:
    return _spelt(follower.index.version if follower.index else None)


def _spelt(version: Version | None) -> str:
    return "" if version is None else str(version)
