"""What the search service does, free of any transport or engine."""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass

from services.common.deadlines import remaining_seconds
from services.common.errors import ArgumentError, DimensionError, OverloadedError, PassportError
from services.common.filters import Filter
from services.common.names import checked_collection, checked_space
from services.common.paging import key_before, page_size, page_token
from services.common.vectors import Matrix, comparable
from services.common.versions import Version
from services.search.collection_index import CollectionIndex, Found, Search
from services.search.errors import VersionNotReachedError
from services.search.feed import Space
from services.search.follower import Follower
from services.search.followers import Followers
from services.search.reports import IndexReport, index_reports

DEFAULT_TOP_K = 10
MAX_TOP_K = 10_000
MAX_IDS = 10_000
_WAITING_SHARE = 0.9  # of the time there is, so that the refusal arrives before the caller has given up


@dataclass(frozen=True, slots=True)
class Query:
    """What to search: `vector`, shape (dimensions,), of `passport` ("" is not checked), in a space of a collection.

    Once the index holds `version`; `top_k` 0 means `DEFAULT_TOP_K`; the rest is as in `collection_index.Search`.
    """

    collection: str
    space: str
    vector: Matrix
    passport: str = ""
    top_k: int = 0
    condition: Filter | None = None
    version: Version | None = None
    ids: Collection[str] = ()
    score_limit: float | None = None
    exact: bool = False


class Searcher:
    """Searches the indexes that follow the store, a bounded number of searches at a time."""

    def __init__(self, followers: Followers, pool: Executor, *, max_searches: int, wait_seconds: float) -> None:
        self._followers = followers
        self._pool = pool
        self._max_searches = max_searches
        self._wait_seconds = wait_seconds
        self._searches = 0

    async def search(self, query: Query) -> Found:
        """Return the items nearest to the query's vector.

        Raises:
            ArgumentError: a name or `top_k` is not allowed.
            CollectionNotFoundError: no such collection.
            SpaceNotFoundError: it has no such space.
            DimensionError: the vector's length is not the space's.
            VectorError: the space's metric cannot compare it.
            PassportError: other weights, runtime or preprocessing made it.
            VersionUnknownError: the version is of a collection since dropped.
            VersionNotReachedError: the index does not hold the version in time.
            OverloadedError: too many searches are under way.
        """
        checked_collection(query.collection)
        checked_space(query.space)
        top_k = _checked_top_k(query.top_k)
        if len(query.ids) > MAX_IDS:
            raise ArgumentError("ids", len(query.ids), f"there must be at most {MAX_IDS}")
        with self._admitted():
            index = await self._index(query.collection, query.version)
            _check_vector(query, index.space(query.space))
            asked = Search(
                query.space, top_k, query.condition, frozenset(query.ids), query.score_limit, exact=query.exact
            )
            found, *_ = await asyncio.get_running_loop().run_in_executor(
                self._pool, index.search, asked, query.vector[None]
            )
            return found

    async def list_indexes(self, wanted: int, token: str) -> tuple[Sequence[IndexReport], str]:
        """Return a page of the indexes, by collection and space, and the token of the next, "" after the last.

        Raises:
            ArgumentError: the page size is not allowed.
            TokenError: the token cannot be read.
        """
        size, before = page_size(wanted), key_before(token)
        reports = await asyncio.to_thread(index_reports, self._followers.all())
        page = [report for report in reports if before is None or report.key > before][: size + 1]
        return page[:size], page_token(page[size - 1].key) if len(page) > size else ""

    async def item_ids(self, collection: str, space: str, version: Version | None) -> tuple[Sequence[str], Version]:
        """Return the ids of all items with a vector in a space, once the index holds `version`, and the one it holds.

        Raises as `search` does.
        """
        checked_collection(collection)
        checked_space(space)
        with self._admitted():
            index = await self._index(collection, version)
            return await asyncio.get_running_loop().run_in_executor(self._pool, index.item_ids, space)

    async def rebuild(self, collection: str) -> Version:
        """Build the indexes of a collection anew; return the version they hold once they replace the old ones.

        Raises:
            ArgumentError: the name is not allowed.
            CollectionNotFoundError: no such collection.
        """
        follower = await self._followers.follower(checked_collection(collection))
        return await follower.rebuilt()

    async def _index(self, collection: str, version: Version | None) -> CollectionIndex:
        follower = await self._followers.follower(collection)
        try:
            async with asyncio.timeout(remaining_seconds(self._wait_seconds) * _WAITING_SHARE):
                return await follower.reached(version)
        except TimeoutError as error:
            raise VersionNotReachedError(collection, _spelt(version), _applied(follower)) from error

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._searches >= self._max_searches:
            limit = str(self._max_searches)
            raise OverloadedError(f"{limit} searches are under way", queue="searches", limit=limit)
        self._searches += 1
        try:
            yield
        finally:
            self._searches -= 1


def _checked_top_k(top_k: int) -> int:
    if not 0 <= top_k <= MAX_TOP_K:
        raise ArgumentError("top_k", top_k, f"must be 1 to {MAX_TOP_K}, or 0 for {DEFAULT_TOP_K}")
    return top_k or DEFAULT_TOP_K


def _check_vector(query: Query, space: Space) -> None:
    if len(query.vector) != space.dimensions:
        raise DimensionError(space.dimensions, len(query.vector))
    if query.passport and query.passport != space.passport:
        raise PassportError(space.passport, query.passport)
    comparable(query.vector, space.metric)


def _applied(follower: Follower) -> str:
    return _spelt(follower.index.version if follower.index else None)


def _spelt(version: Version | None) -> str:
    return "" if version is None else str(version)
