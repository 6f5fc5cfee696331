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
from services.search.query.requests import MAX_BATCH_VECTORS, EncodedVectors, Query, SearchOptions, decode_vectors
from services.search.replication.replica import Replica
from services.search.replication.replicas import Replicas
from services.search.replication.status import IndexReport, index_reports

INLINE_DECODE_BYTES = 2**16
_WAIT_SHARE = 0.9  # of the time there is, so that the refusal arrives before the caller has given up

Response = TypeVar("Response")


class Searcher:
    """Searches the indexes that follow the store. What it answers is told by its callers' words, in a thread."""

    def __init__(
        self,
        replicas: Replicas,
        *,
        batcher: SearchBatcher,
        cursors: Cursors,
        batch_searcher: BatchSearcher,
        executor: BoundedExecutor,
        searches: ConcurrencyLimiter,
        batches: ConcurrencyLimiter,
        wait_seconds: float,
        metrics: Metrics,
    ) -> None:
        """`executor` does what takes longer than single searches, which do not wait for it."""
        self._replicas = replicas
        self._batcher = batcher
        self._cursors = cursors
        self._batch_searcher = batch_searcher
        self._executor = executor
        self._searches = searches
        self._batches = batches
        self._wait_seconds = wait_seconds
        self._metrics = metrics

    async def search(self, query: Query, serialize: Callable[[SearchResult, str], Response]) -> Response:
        """Return what `serialize` makes of the items nearest to the query's vector, and of the token of the next page.

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
        options, search = query.options, query.options.validate()
        serialize = _with_metrics(self._metrics, options, serialize)
        with self._searches.admit():
            if query.page_token:
                replica = await self._replicas.get(options.collection)
                newest = replica.index.version if replica.index else None
                return await self._cursors.next(newest, search, query, serialize)
            index = await self._index(options.collection, options.version)
            query.check_vector(index.space(search.space))
            if query.paged:
                return await self._cursors.first(index, search, query, serialize)
            return await self._batcher.search(index, search, query.vector, lambda result: serialize(result, ""))

    async def search_batch(
        self,
        parts: AsyncIterator[SearchOptions | EncodedVectors],
        serialize: Callable[[Sequence[SearchResult]], Sequence[Response]],
    ) -> AsyncIterator[Response]:
        """Yield what `serialize` makes of what each vector of `parts` finds, in their order, all in one version.

        The options come first; vectors are searched for as they come. Raises as `search` does, and:
            BatchDimensionError: a vector's length is not the space's.
            BatchVectorError: the space's metric cannot compare a vector.
        """
        options = await _first(parts)
        search = options.validate()
        serialize = _with_batch_metrics(self._metrics, options, serialize)
        with self._batches.admit(), self._searches.admit():
            index = await self._index(options.collection, options.version)
            space = index.space(search.space)
            options.check_fingerprint(space)
            batch = Batch(options.collection, search, _vectors(parts, space, search.top_k))
            async with aclosing(self._batch_searcher.search(index, batch, serialize)) as responses:
                async for response in responses:
                    yield response

    async def list_indexes(self, requested_size: int, token: str) -> tuple[Sequence[IndexReport], str]:
        """Return a page of the indexes, by collection and space, and the token of the next, "" after the last.

        Raises:
            ArgumentError: the page size is not allowed.
            TokenError: the token cannot be read.
        """
        size, before = validate_page_size(requested_size), decode_page_token(token)
        reports = await asyncio.to_thread(index_reports, self._replicas.all())
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
        replica = await self._replicas.get(validate_collection_name(collection))
        return await replica.rebuild()

    async def _index(self, collection: str, version: Version | None) -> CollectionIndex:
        replica = await self._replicas.get(collection)
        if replica.index is not None and _holds(replica.index, version):
            return replica.index
        try:
            async with asyncio.timeout(remaining_seconds(self._wait_seconds) * _WAIT_SHARE):
                return await replica.wait_for_version(version)
        except TimeoutError as error:
            raise VersionNotReachedError(collection, _token_of(version), _applied_version(replica)) from error


def _with_metrics(
    metrics: Metrics, options: SearchOptions, serialize: Callable[[SearchResult, str], Response]
) -> Callable[[SearchResult, str], Response]:
    began = time.perf_counter()

    def record_and_serialize(result: SearchResult, next_page_token: str) -> Response:
        metrics.record_search(options.collection, options.space, result, time.perf_counter() - began)
        return serialize(result, next_page_token)

    return record_and_serialize


def _with_batch_metrics(
    metrics: Metrics, options: SearchOptions, serialize: Callable[[Sequence[SearchResult]], Sequence[Response]]
) -> Callable[[Sequence[SearchResult]], Sequence[Response]]:
    def record_and_serialize(result: Sequence[SearchResult]) -> Sequence[Response]:
        metrics.record_batch(options.collection, options.space, result)
        return serialize(result)

    return record_and_serialize


async def _first(parts: AsyncIterator[SearchOptions | EncodedVectors]) -> SearchOptions:
    first = await anext(parts, None)
    if not isinstance(first, SearchOptions):
        raise ArgumentError("options", "", "must come first, before any vectors")
    return first


async def _vectors(
    parts: AsyncIterator[SearchOptions | EncodedVectors], space: Space, top_k: int
) -> AsyncIterator[Matrix]:
    offset = 0
    async for part in parts:
        if isinstance(part, SearchOptions):
            raise ArgumentError("options", part.collection, "must come once, before all vectors")
        vectors = await _decode(part, space, offset, top_k)
        offset += len(vectors)
        yield vectors
    if not offset:
        raise ArgumentError("vectors", 0, f"there must be 1 to {MAX_BATCH_VECTORS}")


async def _decode(part: EncodedVectors, space: Space, offset: int, top_k: int) -> Matrix:
    if len(part) <= INLINE_DECODE_BYTES:
        return decode_vectors(part, space, offset, top_k)
    return await asyncio.to_thread(decode_vectors, part, space, offset, top_k)


def _holds(index: CollectionIndex, version: Version | None) -> bool:
    applied = index.version
    if applied is None or version is None:
        return applied is not None
    return applied.uid == version.uid and applied.number >= version.number


def _applied_version(replica: Replica) -> str:
    return _token_of(replica.index.version if replica.index else None)


def _token_of(version: Version | None) -> str:
    return "" if version is None else str(version)
