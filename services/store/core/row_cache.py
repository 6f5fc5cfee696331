"""Rows kept in memory, as many as fit: what a search finds need not be looked up in the table.

A cache around a catalogue and its tables, of the same ports. It knows as of which commit its rows hold: a write through
it brings the new rows along, and after any other commit it asks the table what has changed.
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
from services.store.core.rows import CollectionSchema, Part, Parts, Row
from services.store.core.table import Changes, RowLookup, Snapshot, Table, TableCatalog

log = logging.getLogger(__name__)

KEPT: Parts = frozenset({Part.TEXT, Part.METADATA, Part.MEDIA})
IDS_AT_MOST = 256  # more at a time is a bulk read, which would only push out what is asked for often
ROW_BYTES = 1000  # of a row's objects, without its text and metadata
UNKNOWN = 0  # before the first commit


class RowCache:
    """At most about `max_bytes` of rows without vectors, of any collections, the ones asked for last."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._rows: OrderedDict[tuple[str, str], Row] = OrderedDict()

    @property
    def full(self) -> bool:
        """Whether one more row pushes another out."""
        return self._bytes + ROW_BYTES > self._max_bytes

    def recall(self, uid: str, ids: Iterable[str]) -> dict[str, Row]:
        """Return those of `ids` that are here."""
        here = {}
        for row_id in ids:
            row = self._rows.get((uid, row_id))
            if row is not None:
                self._rows.move_to_end((uid, row_id))
                here[row_id] = row
        return here

    def keep(self, uid: str, rows: Iterable[Row]) -> None:
        """Take `rows` in, in place of what was here of theirs."""
        for row in rows:
            self.forget(uid, [row.id])
            self._rows[uid, row.id] = row
            self._bytes += _bytes(row)
        while self._bytes > self._max_bytes:
            self._bytes -= _bytes(self._rows.popitem(last=False)[1])

    def forget(self, uid: str, ids: Iterable[str]) -> None:
        """Drop the rows of `ids`."""
        for row_id in ids:
            row = self._rows.pop((uid, row_id), None)
            if row is not None:
                self._bytes -= _bytes(row)

    def forget_all(self, uid: str) -> None:
        """Drop every row of a collection."""
        self.forget(uid, [row_id for owner, row_id in self._rows if owner == uid])


class CachedCatalog:
    """`TableCatalog` over another, whose tables answer from `recent` what is there."""

    def __init__(self, catalogue: TableCatalog, recent: RowCache) -> None:
        self._catalogue = catalogue
        self._recent = recent
        self._tables: dict[str, CachedTable] = {}
        self._loading: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def loading(self) -> AsyncIterator[None]:
        """Let tables be read into memory while the block runs."""
        try:
            yield
        finally:
            for task in self._loading:
                task.cancel()
            await asyncio.gather(*self._loading, return_exceptions=True)

    async def create(self, definition: CollectionSchema) -> Table:
        """See `TableCatalog`."""
        return self._cached(await self._catalogue.create(definition))

    async def open(self, name: str) -> Table:
        """See `TableCatalog`. What fits of a table opened for the first time is read into memory in the background."""
        return self._cached(await self._catalogue.open(name))

    async def names(self) -> list[str]:
        """See `TableCatalog`."""
        return await self._catalogue.names()

    async def drop(self, name: str) -> None:
        """See `TableCatalog`."""
        await self._catalogue.drop(name)
        table = self._tables.pop(name, None)
        if table is not None:
            self._recent.forget_all(table.definition.uid)

    def _cached(self, table: Table) -> "CachedTable":
        known = self._tables.get(table.definition.name)
        if known is not None and known.wraps(table):
            return known
        if known is not None:
            self._recent.forget_all(known.definition.uid)
        cached = self._tables[table.definition.name] = CachedTable(table, self._recent)
        task = asyncio.create_task(cached.load())
        self._loading.add(task)
        task.add_done_callback(self._loading.discard)
        return cached


class CachedTable:
    """`Table` over another. What is kept of it holds as of commit `_kept_as_of`."""

    def __init__(self, table: Table, recent: RowCache) -> None:
        self._table = table
        self._recent = recent
        self._uid = table.definition.uid
        self._kept_as_of = UNKNOWN
        self._catching_up = False

    @property
    def definition(self) -> CollectionSchema:
        """See `Table`."""
        return self._table.definition

    @property
    def version(self) -> int:
        """See `Table`."""
        return self._table.version

    def wraps(self, table: Table) -> bool:
        """Return whether this is the cache of `table`."""
        return self._table is table

    async def load(self) -> None:
        """Read rows until all are here or there is no more room."""
        try:
            with self._alone() as alone:
                if alone:
                    await self._load()
        except CollectionNotFoundError:
            return  # dropped since
        except ServiceError as error:
            log.warning("rows of %s are not read into memory: %s", self.definition.name, error)
        except Exception:
            log.exception("rows of %s are not read into memory", self.definition.name)

    async def get(self, ids: Collection[str], parts: Parts) -> RowLookup:
        """See `Table`."""
        version = await self._table.newer_than(UNKNOWN)  # which also tells whether the table was dropped
        if Part.VECTORS in parts or len(ids) > IDS_AT_MOST:
            return await self._table.get(ids, parts)
        if self._kept_as_of != version:
            await self._catch_up()
        if self._kept_as_of != self._table.version:
            return await self._table.get(ids, parts)
        return await self._get(ids, parts, self._kept_as_of)

    async def page(self, after: str | None, limit: int, parts: Parts) -> list[Row]:
        """See `Table`."""
        return await self._table.page(after, limit, parts)

    def scan(self, parts: Parts) -> AsyncIterator[list[Row]]:
        """See `Table`."""
        return self._table.scan(parts)

    async def count(self) -> int:
        """See `Table`."""
        return await self._table.count()

    async def write(self, rows: Sequence[Row], deletions: Sequence[str], based_on: int) -> int:
        """See `Table`. Where no other commit came between, all that changed is known."""
        version = await self._table.write(rows, deletions, based_on)
        if self._kept_as_of == based_on == version - 1:
            self._recent.forget(self._uid, deletions)
            self._recent.keep(self._uid, (replace(row, vectors={}) for row in rows))
            self._kept_as_of = version
        return version

    async def configure(self, space: str, index: IndexConfig) -> int:
        """See `Table`."""
        return await self._table.configure(space, index)

    async def changes(self, after: int) -> Changes:
        """See `Table`."""
        return await self._table.changes(after)

    async def newer_than(self, version: int) -> int:
        """See `Table`."""
        return await self._table.newer_than(version)

    async def tidy(self, forget_deletions_before: datetime, forget_versions_before: datetime) -> None:
        """See `Table`."""
        await self._table.tidy(forget_deletions_before, forget_versions_before)

    async def purge(self) -> None:
        """See `Table`."""
        await self._table.purge()

    async def as_of(self, version: int) -> Snapshot:
        """See `Table`."""
        return await self._table.as_of(version)

    async def tag(self, name: str, version: int) -> None:
        """See `Table`."""
        await self._table.tag(name, version)

    async def tags(self) -> Mapping[str, int]:
        """See `Table`."""
        return await self._table.tags()

    async def untag(self, name: str) -> bool:
        """See `Table`."""
        return await self._table.untag(name)

    async def _load(self) -> None:
        snapshot = await self._table.as_of(self._table.version)
        if self._kept_as_of == UNKNOWN:  # else there are rows already, of that commit or another
            self._kept_as_of = snapshot.version
        async for rows in snapshot.scan(KEPT):
            if self._kept_as_of != snapshot.version or self._recent.full:
                return  # what is read on is no longer what is wanted
            self._recent.keep(self._uid, rows)

    async def _get(self, ids: Collection[str], parts: Parts, version: int) -> RowLookup:
        here = self._recent.recall(self._uid, ids)
        missing = [row_id for row_id in ids if row_id not in here]
        if missing:
            found = await self._table.get(missing, KEPT)
            if found.version != version:  # a commit came between: all is to be as of one
                return await self._table.get(ids, parts)
            if self._kept_as_of == version:
                self._recent.keep(self._uid, found.rows.values())
            here.update(found.rows)
        return RowLookup(version, here if parts == KEPT else {row_id: _cut(row, parts) for row_id, row in here.items()})

    async def _catch_up(self) -> None:
        """Drop what has changed since; who comes meanwhile is answered by the table itself.

        Nothing is kept meanwhile: a row on its way here may be one that was dropped a moment ago.
        """
        with self._alone() as alone:
            if not alone:
                return
            since, self._kept_as_of = self._kept_as_of, UNKNOWN
            try:
                since = await self._forget_changes(since)
            finally:
                self._kept_as_of = since

    async def _forget_changes(self, since: int) -> int:
        """Drop what has changed since commit `since`; return as of which one the rest holds."""
        changes = await self._table.changes(since) if since else None
        if changes is None or not changes.complete:
            self._recent.forget_all(self._uid)
            return max(since, changes.version if changes else self._table.version)
        async for rows in changes.batches:
            self._recent.forget(self._uid, [*rows.ids, *rows.deleted_ids])
        return max(since, changes.version)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        if self._catching_up:
            yield False
            return
        self._catching_up = True
        try:
            yield True
        finally:
            self._catching_up = False


def _bytes(row: Row) -> int:
    return ROW_BYTES + len(row.text or "") + len(row.metadata_json)


def _cut(row: Row, parts: Parts) -> Row:
    return replace(
        row,
        text=row.text if Part.TEXT in parts else None,
        metadata_json=row.metadata_json if Part.METADATA in parts else "{}",
        media=row.media if Part.MEDIA in parts else None,
    )
