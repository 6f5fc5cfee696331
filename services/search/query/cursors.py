"""Rankings that callers read in pages: each stays in the version it began in, for a while after its last page.

A token says which process holds the ranking, which one it is, and from which place to go on, so that a page can be
asked for again. What a token goes on in must be asked for in the same words as the first page.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from services.common.concurrency.executors import BoundedExecutor
from services.common.errors import ArgumentError, OverloadedError, TokenError, VersionExpiredError, VersionUnknownError
from services.common.filters import canonical_key
from services.common.versions import Version
from services.search.core.collection_index import (
    CollectionIndex,
    Pages,
    ReadView,
    Search,
    SearchResult,
    SupportsReadViews,
)
from services.search.core.errors import LeaseExpiredError, PageTokenError
from services.search.query.requests import Query, SearchOptions

Response = TypeVar("Response")
Serialize = Callable[[SearchResult, str], Response]


@dataclass(frozen=True, slots=True)
class PageToken:
    """Where a page begins: at `offset`, from 0, of the ranking `ranking` that `process` keeps in `version`."""

    process: str
    ranking: str
    offset: int
    version: Version

    @classmethod
    def parse(cls, token: str) -> "PageToken":
        """Return what `token` spells.

        Raises:
            TokenError: it is no token of a page.
        """
        process, ranking, offset, version = [*token.split("-", 3), "", "", "", ""][:4]
        if not (process.isalnum() and ranking.isalnum() and offset.isascii() and offset.isdigit()):
            raise TokenError(token)
        try:
            return cls(process, ranking, int(offset), Version.parse(version))
        except TokenError as error:
            raise TokenError(token) from error

    def __str__(self) -> str:
        return f"{self.process}-{self.ranking}-{self.offset}-{self.version}"


@dataclass(slots=True, eq=False)
class _Cursor:
    """A ranking being read. `uses` pages are being made; when none is, `expiry` ends it. `ended`: its end was read."""

    name: str
    query: Query
    version: ReadView
    pages: Pages
    uses: int = 0
    ended: bool = False
    expiry: asyncio.TimerHandle | None = field(default=None)


class Cursors:
    """The rankings being read, `max_cursors` of them, each for `seconds` after its last page."""

    def __init__(self, executor: BoundedExecutor, *, max_cursors: int, seconds: float) -> None:
        self._executor = executor
        self._max_cursors = max_cursors
        self._seconds = seconds
        self._process = secrets.token_hex(4)
        self._cursors: dict[str, _Cursor] = {}

    def close(self) -> None:
        """Forget every ranking."""
        for cursor in list(self._cursors.values()):
            self._close(cursor)

    async def first(
        self, index: CollectionIndex, search: Search, query: Query, serialize: Serialize[Response]
    ) -> Response:
        """Return what `serialize`, run in a thread, makes of the first page and the next token, "" after the last.

        Raises:
            ArgumentError: what keeps this collection cannot keep a version.
            OverloadedError: too many rankings are being read.
        """
        if not isinstance(index, SupportsReadViews):
            raise ArgumentError("paged", True, "the engine of this collection has no pages")
        self._evict_ended()
        version = index.open_view()
        cursor = _Cursor(secrets.token_hex(8), query, version, version.pages(search, query.vector))
        self._cursors[cursor.name] = cursor
        try:
            response = await self._page(cursor, 0, search.top_k, serialize)
        except BaseException:  # nobody has a token of it
            self._close(cursor)
            raise
        if cursor.ended:
            self._close(cursor)
        return response

    async def next(
        self, newest: Version | None, search: Search, query: Query, serialize: Serialize[Response]
    ) -> Response:
        """Return what `serialize` makes of the page that the query's token names, as `first` does.

        Raises:
            TokenError: the token is none, or of another search.
            VersionExpiredError: the ranking is no longer kept, or not by this process.
            VersionUnknownError: the collection, now at `newest`, is another one of the same name.
        """
        token = PageToken.parse(query.page_token)
        cursor = self._cursors.get(token.ranking) if token.process == self._process else None
        if cursor is None or cursor.version.version != token.version:
            raise VersionExpiredError(query.options.collection, str(token.version))
        if newest is not None and newest.uid != token.version.uid:
            raise VersionUnknownError(query.options.collection, str(token.version))
        _check_same(query, cursor.query)
        return await self._page(cursor, token.offset, search.top_k, serialize)

    async def _page(self, cursor: _Cursor, offset: int, size: int, serialize: Serialize[Response]) -> Response:
        async with self._using(cursor):
            response, cursor.ended = await self._executor.run(self._serialize_page, cursor, offset, size, serialize)
            return response

    def _serialize_page(
        self, cursor: _Cursor, offset: int, size: int, serialize: Serialize[Response]
    ) -> tuple[Response, bool]:
        page = cursor.pages.page(offset, size)
        token = PageToken(self._process, cursor.name, offset + size, cursor.version.version) if page.more else ""
        return serialize(page.result, str(token)), not page.more

    @asynccontextmanager
    async def _using(self, cursor: _Cursor) -> AsyncIterator[None]:
        cursor.uses += 1
        if cursor.expiry:
            cursor.expiry.cancel()
        try:
            yield
        except LeaseExpiredError as error:
            self._close(cursor)
            raise VersionExpiredError(cursor.query.options.collection, str(cursor.version.version)) from error
        except Exception:
            self._close(cursor)
            raise
        finally:
            cursor.uses -= 1
            if not cursor.uses and cursor.name in self._cursors:
                cursor.expiry = asyncio.get_running_loop().call_later(self._seconds, self._close, cursor)

    def _evict_ended(self) -> None:
        """See to it that one more ranking can be kept: one that was read to its end is given up for it."""
        if len(self._cursors) < self._max_cursors:
            return
        ended = next((cursor for cursor in self._cursors.values() if cursor.ended and not cursor.uses), None)
        if ended is None:
            limit = str(self._max_cursors)
            raise OverloadedError(f"{limit} rankings are being read in pages", queue="cursors", limit=limit)
        self._close(ended)

    def _close(self, cursor: _Cursor) -> None:
        if cursor.expiry:
            cursor.expiry.cancel()
        if self._cursors.pop(cursor.name, None):
            cursor.version.release()


def _check_same(query: Query, first: Query) -> None:
    """Refuse a query that asks for other things than the `first` page did, `top_k` and `version` apart.

    Raises:
        PageTokenError: it does.
    """
    given, first_fields = _comparable_fields(query.options), _comparable_fields(first.options)
    for name, value in {**given, "vector": query.vector.tobytes()}.items():
        if value != {**first_fields, "vector": first.vector.tobytes()}[name]:
            raise PageTokenError(query.page_token, name)


def _comparable_fields(options: SearchOptions) -> dict[str, object]:
    return {
        "collection": options.collection,
        "space": options.space,
        "fingerprint": options.fingerprint,
        "filter": None if options.condition is None else canonical_key(options.condition),
        "ids": frozenset(options.ids),
        "score_limit": options.score_limit,
        "exact": options.exact,
    }
