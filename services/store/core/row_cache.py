"""An LRU cache of rows, so that the hits of a search need no lookup in the table.

It wraps a catalog and its tables and implements the same ports. The cached rows of a table are valid as of one commit:
a write through the cache updates them, and after any other commit the rows that changed are evicted.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import datetime

from services.common.errors import CollectionNotFoundError, ServiceError
from services.common.index_config import IndexConfig
from services.store.core.rows import CollectionSchema, Row, RowField, RowFields, select_fields
from services.store.core.table import Changes, RowLookup, Snapshot, Table, TableCatalog

log = logging.getLogger(__name__)

CACHED_FIELDS: RowFields = frozenset({RowField.TEXT, RowField.METADATA, RowField.MEDIA})
MAX_CACHED_LOOKUP = 256  # ids; more is a bulk read, which would evict the rows that are read often
ROW_BYTES = 1000  # size of a row's objects, without its text and metadata
NO_VERSION = 0  # before the first commit


class RowCache:
    """The most recently read rows of all collections, without vectors, of at most about `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._rows: OrderedDict[tuple[str, str], Row] = OrderedDict()

    @property
    def full(self) -> bool:
        """Whether one more row evicts another."""
        return self._bytes + ROW_BYTES > self._max_bytes

    def get(self, uid: str, ids: Iterable[str]) -> dict[str, Row]:
        """Return the cached rows of `ids`."""
        cached = {}
        for row_id in ids:
            row = self._rows.get((uid, row_id))
            if row is not None:
                self._rows.move_to_end((uid, row_id))
                cached[row_id] = row
        return cached

    def put(self, uid: str, rows: Iterable[Row]) -> None:
        """Cache `rows`, replacing those with the same ids."""
        for row in rows:
            self.evict(uid, [row.id])
            self._rows[uid, row.id] = row
            self._bytes += _bytes(row)
        while self._bytes > self._max_bytes:
            self._bytes -= _bytes(self._rows.popitem(last=False)[1])

    def evict(self, uid: str, ids: Iterable[str]) -> None:
        """Evict the rows of `ids`."""
        for row_id in ids:
            row = self._rows.pop((uid, row_id), None)
            if row is not None:
                self._bytes -= _bytes(row)

    def evict_collection(self, uid: str) -> None:
        """Evict all rows of a collection."""
        self.evict(uid, [row_id for owner, row_id in self._rows if owner == uid])


class CachedCatalog:
    """`TableCatalog` around another, whose tables read rows from `cache`."""

    def __init__(self, catalog: TableCatalog, cache: RowCache) -> None:
        self._catalog = catalog
        self._cache = cache
        self._tables: dict[str, CachedTable] = {}
        self._loading: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def loading(self) -> AsyncIterator[None]:
        """Load tables into the cache in the background while the block runs."""
        try:
            yield
        finally:
            for task in self._loading:
                task.cancel()
            await asyncio.gather(*self._loading, return_exceptions=True)

    async def create(self, schema: CollectionSchema) -> Table:
        return self._wrap(await self._catalog.create(schema))

    async def open(self, name: str) -> Table:
        """Return the table; the first time, load what fits of it into the cache in the background."""
        return self._wrap(await self._catalog.open(name))

    async def names(self) -> list[str]:
        return await self._catalog.names()

    async def drop(self, name: str) -> None:
        await self._catalog.drop(name)
        table = self._tables.pop(name, None)
        if table is not None:
            self._cache.evict_collection(table.schema.uid)

    def _wrap(self, table: Table) -> "CachedTable":
        known = self._tables.get(table.schema.name)
        if known is not None and known.wraps(table):
            return known
        if known is not None:
            self._cache.evict_collection(known.schema.uid)
        cached = self._tables[table.schema.name] = CachedTable(table, self._cache)
        task = asyncio.create_task(cached.load())
        self._loading.add(task)
        task.add_done_callback(self._loading.discard)
        return cached


class CachedTable:
    """`Table` around another. Its cached rows are valid as of commit `_cached_version`."""

    def __init__(self, table: Table, cache: RowCache) -> None:
        self._table = table
        self._cache = cache
        self._uid = table.schema.uid
        self._cached_version = NO_VERSION
        self._busy = False

    @property
    def schema(self) -> CollectionSchema:
        return self._table.schema

    @property
    def version(self) -> int:
        return self._table.version

    def wraps(self, table: Table) -> bool:
        """Return whether this wraps `table`."""
        return self._table is table

    async def load(self) -> None:
        """Load rows until all are cached or the cache is full."""
        try:
            with self._exclusive() as entered:
                if entered:
                    await self._load()
        except CollectionNotFoundError:
            return  # dropped since
        except ServiceError as error:
            log.warning("cannot load rows of %s into the cache: %s", self.schema.name, error)
        except Exception:
            log.exception("cannot load rows of %s into the cache", self.schema.name)

    async def get(self, ids: Collection[str], fields: RowFields) -> RowLookup:
        version = await self._table.wait_for_commit(NO_VERSION)  # returns at once; raises if the table was dropped
        if RowField.VECTORS in fields or len(ids) > MAX_CACHED_LOOKUP:
            return await self._table.get(ids, fields)
        if self._cached_version != version:
            await self._evict_changed()
        if self._cached_version != self._table.version:
            return await self._table.get(ids, fields)
        return await self._get(ids, fields, self._cached_version)

    async def page(self, after: str | None, limit: int, fields: RowFields) -> list[Row]:
        return await self._table.page(after, limit, fields)

    def scan(self, fields: RowFields) -> AsyncIterator[list[Row]]:
        return self._table.scan(fields)

    async def count(self) -> int:
        return await self._table.count()

    async def write(self, rows: Sequence[Row], deletions: Sequence[str], base_version: int) -> int:
        """Write; if there was no other commit in between, update the cached rows."""
        version = await self._table.write(rows, deletions, base_version)
        if self._cached_version == base_version == version - 1:
            self._cache.evict(self._uid, deletions)
            self._cache.put(self._uid, (replace(row, vectors={}) for row in rows))
            self._cached_version = version
        return version

    async def configure(self, space: str, index: IndexConfig) -> int:
        return await self._table.configure(space, index)

    async def changes(self, after: int) -> Changes:
        return await self._table.changes(after)

    async def wait_for_commit(self, after: int) -> int:
        return await self._table.wait_for_commit(after)

    async def optimize(self, deletions_before: datetime, versions_before: datetime) -> None:
        await self._table.optimize(deletions_before, versions_before)

    async def purge(self) -> None:
        await self._table.purge()

    async def as_of(self, version: int) -> Snapshot:
        return await self._table.as_of(version)

    async def create_tag(self, name: str, version: int) -> None:
        await self._table.create_tag(name, version)

    async def tags(self) -> Mapping[str, int]:
        return await self._table.tags()

    async def delete_tag(self, name: str) -> bool:
        return await self._table.delete_tag(name)

    async def _load(self) -> None:
        snapshot = await self._table.as_of(self._table.version)
        if self._cached_version == NO_VERSION:  # else some rows are cached already, as of that commit or another
            self._cached_version = snapshot.version
        async for rows in snapshot.scan(CACHED_FIELDS):
            if self._cached_version != snapshot.version or self._cache.full:
                return  # the cache is full, or now of a newer commit than the scan
            self._cache.put(self._uid, rows)

    async def _get(self, ids: Collection[str], fields: RowFields, version: int) -> RowLookup:
        cached = self._cache.get(self._uid, ids)
        missing = [row_id for row_id in ids if row_id not in cached]
        if missing:
            found = await self._table.get(missing, CACHED_FIELDS)
            if found.version != version:  # there was a commit in between, and all rows must be of one
                return await self._table.get(ids, fields)
            if self._cached_version == version:
                self._cache.put(self._uid, found.rows.values())
            cached.update(found.rows)
        if fields != CACHED_FIELDS:
            cached = {row_id: select_fields(row, fields) for row_id, row in cached.items()}
        return RowLookup(version, cached)

    async def _evict_changed(self) -> None:
        """Evict the rows that changed since the cached commit. Concurrent reads go to the table.

        No rows are cached until it is done: one that is being read may be older than an eviction.
        """
        with self._exclusive() as entered:
            if not entered:
                return
            since, self._cached_version = self._cached_version, NO_VERSION
            try:
                since = await self._evict_changes_since(since)
            finally:
                self._cached_version = since

    async def _evict_changes_since(self, since: int) -> int:
        """Evict the rows that changed after commit `since`; return the commit as of which the others are valid."""
        changes = await self._table.changes(since) if since else None
        if changes is None or not changes.complete:
            self._cache.evict_collection(self._uid)
            return max(since, changes.version if changes else self._table.version)
        async for rows in changes.batches:
            self._cache.evict(self._uid, [*rows.ids, *rows.deleted_ids])
        return max(since, changes.version)

    @contextmanager
    def _exclusive(self) -> Iterator[bool]:
        """Enter if nobody else is inside; yield whether it did."""
        if self._busy:
            yield False
            return
        self._busy = True
        try:
            yield True
        finally:
            self._busy = False


def _bytes(row: Row) -> int:
    return ROW_BYTES + len(row.text or "") + len(row.metadata_json)
