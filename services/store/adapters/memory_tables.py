"""Tables in this process: for tests and trying out. Nothing outlives the process."""

from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from services.common.errors import CollectionNotFoundError
from services.store.commits import CommitBell
from services.store.errors import CollectionExistsError
from services.store.rows import Definition, Part, Parts, Row, Space
from services.store.tables import BATCH_ROWS, ChangedRows, Changes, Found, Table, VectorColumn, WriteConflictError


class MemoryCatalogue:
    """`Catalogue` as a dict."""

    def __init__(self) -> None:
        self._tables: dict[str, MemoryTable] = {}

    async def create(self, definition: Definition) -> Table:
        """Add a table."""
        if definition.name in self._tables:
            raise CollectionExistsError(definition.name)
        self._tables[definition.name] = MemoryTable(definition)
        return self._tables[definition.name]

    async def open(self, name: str) -> Table:
        """Look it up."""
        if name not in self._tables:
            raise CollectionNotFoundError(name)
        return self._tables[name]

    async def names(self) -> list[str]:
        """Sort the names."""
        return sorted(self._tables)

    async def drop(self, name: str) -> None:
        """Forget the table."""
        if name not in self._tables:
            raise CollectionNotFoundError(name)
        self._tables.pop(name).close()


class MemoryTable:
    """`Table` as a dict of rows and one of deletions, each with the commit it is from."""

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._rows: dict[str, tuple[int, Row]] = {}
        self._deletions: dict[str, tuple[int, datetime]] = {}
        self._forgotten = 0
        self._bell = CommitBell(definition.name, newest=1)

    @property
    def definition(self) -> Definition:
        """The collection as created."""
        return self._definition

    @property
    def version(self) -> int:
        """The newest commit."""
        return self._bell.newest

    def close(self) -> None:
        """Be dropped."""
        self._bell.drop()

    async def get(self, ids: Collection[str], parts: Parts) -> Found:
        """Look the rows up."""
        self._bell.check()
        rows = {row_id: _only(self._rows[row_id][1], parts) for row_id in ids if row_id in self._rows}
        return Found(self.version, rows)

    async def page(self, after: str | None, limit: int, parts: Parts) -> list[Row]:
        """Sort the ids."""
        self._bell.check()
        ids = sorted(row_id for row_id in self._rows if after is None or row_id > after)
        return [_only(self._rows[row_id][1], parts) for row_id in ids[:limit]]

    async def scan(self, parts: Parts) -> AsyncGenerator[list[Row], None]:
        """Yield the rows as they were at the first step."""
        self._bell.check()
        rows = [_only(row, parts) for _, row in self._rows.values()]
        for start in range(0, len(rows), BATCH_ROWS):
            yield rows[start : start + BATCH_ROWS]

    async def count(self) -> int:
        """Count the rows."""
        self._bell.check()
        return len(self._rows)

    async def write(self, rows: Sequence[Row], deletions: Sequence[str], based_on: int) -> int:
        """Check each row's last change, then apply all."""
        self._bell.check()
        if any(self._last_change(row_id) > based_on for row_id in (*deletions, *(row.id for row in rows))):
            raise WriteConflictError
        version = self.version + 1
        for row in rows:
            self._deletions.pop(row.id, None)
            self._rows[row.id] = version, row
        for row_id in deletions:
            del self._rows[row_id]
            self._deletions[row_id] = version, datetime.now(UTC)
        self._bell.committed(version)
        return version

    async def changes(self, after: int) -> Changes:
        """Pick what a later commit wrote."""
        self._bell.check()
        complete = after == 0 or self._forgotten <= after <= self.version
        cursor = after if complete else 0
        rows = [row for version, row in self._rows.values() if version > cursor]
        deleted = [row_id for row_id, (version, _) in self._deletions.items() if version > cursor > 0]
        return Changes(self.version, complete, _batches(self._definition.spaces, rows, deleted))

    async def newer_than(self, version: int) -> int:
        """Wait for a commit."""
        return await self._bell.newer_than(version)

    async def tidy(self, forget_deletions_before: datetime, forget_versions_before: datetime) -> None:
        """Forget old deletions; there are no old commits."""
        self._bell.check()
        old = {row_id: version for row_id, (version, at) in self._deletions.items() if at < forget_deletions_before}
        self._forgotten = max(self._forgotten, *old.values(), 0)
        self._deletions = {row_id: entry for row_id, entry in self._deletions.items() if row_id not in old}

    def _last_change(self, row_id: str) -> int:
        return max(entries[row_id][0] if row_id in entries else 0 for entries in (self._rows, self._deletions))


async def _batches(spaces: Sequence[Space], rows: list[Row], deleted: list[str]) -> AsyncGenerator[ChangedRows, None]:
    for start in range(0, max(len(rows), len(deleted)), BATCH_ROWS):
        lot = rows[start : start + BATCH_ROWS]
        vectors = {space.name: _column(space, lot) for space in spaces}
        removed = deleted[start : start + BATCH_ROWS]
        yield ChangedRows([row.id for row in lot], [row.metadata_json for row in lot], vectors, removed)


def _column(space: Space, rows: Sequence[Row]) -> VectorColumn:
    present = np.array([space.name in row.vectors for row in rows], dtype=np.bool_)
    values = np.zeros((len(rows), space.dimensions), np.float32)
    for position, row in enumerate(rows):
        if present[position]:
            values[position] = row.vectors[space.name]
    return VectorColumn(values, present)


def _only(row: Row, parts: Parts) -> Row:
    return replace(
        row,
        text=row.text if Part.TEXT in parts else None,
        media=row.media if Part.MEDIA in parts else None,
        metadata_json=row.metadata_json if Part.METADATA in parts else "{}",
        vectors=row.vectors if Part.VECTORS in parts else {},
    )
