"""Tables in this process: for tests and trying out. Nothing outlives the process."""

from bisect import bisect_right
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from services.common.errors import CollectionNotFoundError, VersionExpiredError
from services.common.index_config import IndexConfig
from services.common.versions import Version
from services.store.core.commit_notifier import CommitNotifier
from services.store.core.errors import CollectionExistsError
from services.store.core.rows import CollectionSchema, Part, Parts, Row, Space
from services.store.core.table import (
    BATCH_ROWS,
    ChangedRows,
    Changes,
    RowLookup,
    Snapshot,
    Table,
    VectorColumn,
    WriteConflictError,
)


class MemoryCatalogue:
    """`Catalogue` as a dict."""

    def __init__(self) -> None:
        self._tables: dict[str, MemoryTable] = {}

    async def create(self, definition: CollectionSchema) -> Table:
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
    """`Table` as a dict of rows and one of deletions; what each row and the definition were is kept by commit."""

    def __init__(self, definition: CollectionSchema) -> None:
        self._definition = definition
        self._rows: dict[str, Row] = {}
        self._written: dict[str, int] = {}
        self._deletions: dict[str, tuple[int, datetime]] = {}
        self._past: dict[str, list[tuple[int, Row | None]]] = {}
        self._commits: dict[int, datetime] = {1: datetime.now(UTC)}
        self._definitions = [(1, definition)]
        self._tags: dict[str, int] = {}
        self._forgotten = 0
        self._bell = CommitNotifier(definition.name, newest=1)

    @property
    def definition(self) -> CollectionSchema:
        """The collection as of the newest commit."""
        return self._definition

    @property
    def version(self) -> int:
        """The newest commit."""
        return self._bell.newest

    def close(self) -> None:
        """Be dropped."""
        self._bell.drop()

    async def get(self, ids: Collection[str], parts: Parts) -> RowLookup:
        """Look the rows up."""
        return await self._newest().get(ids, parts)

    async def page(self, after: str | None, limit: int, parts: Parts) -> list[Row]:
        """Sort the ids."""
        return await self._newest().page(after, limit, parts)

    async def scan(self, parts: Parts) -> AsyncGenerator[list[Row], None]:
        """Yield the rows as they were at the first step."""
        async for rows in self._newest().scan(parts):
            yield rows

    async def count(self) -> int:
        """Count the rows."""
        return await self._newest().count()

    async def write(self, rows: Sequence[Row], deletions: Sequence[str], based_on: int) -> int:
        """Check each row's last change, then apply all."""
        self._bell.check()
        if any(self._last_change(row_id) > based_on for row_id in (*deletions, *(row.id for row in rows))):
            raise WriteConflictError
        version = self.version + 1
        for row in rows:
            self._deletions.pop(row.id, None)
            self._rows[row.id] = row
            self._written[row.id] = version
            self._past.setdefault(row.id, []).append((version, row))
        for row_id in deletions:
            del self._rows[row_id], self._written[row_id]
            self._deletions[row_id] = version, datetime.now(UTC)
            self._past[row_id].append((version, None))
        self._commits[version] = datetime.now(UTC)
        self._bell.committed(version)
        return version

    async def configure(self, space: str, index: IndexConfig) -> int:
        """Replace the definition."""
        self._bell.check()
        definition = self._definition.indexed({space: index})
        if definition == self._definition:
            return self.version
        version = self.version + 1
        self._definition = definition
        self._definitions.append((version, definition))
        self._commits[version] = datetime.now(UTC)
        self._bell.committed(version)
        return version

    async def changes(self, after: int) -> Changes:
        """Pick what a later commit wrote."""
        self._bell.check()
        complete = after == 0 or self._forgotten <= after <= self.version
        cursor = after if complete else 0
        rows = [self._rows[row_id] for row_id, version in self._written.items() if version > cursor]
        deleted = [row_id for row_id, (version, _) in self._deletions.items() if version > cursor > 0]
        return Changes(self.version, complete, self._definition, _batches(self._definition.spaces, rows, deleted))

    async def newer_than(self, version: int) -> int:
        """Wait for a commit."""
        return await self._bell.newer_than(version)

    async def tidy(self, forget_deletions_before: datetime, forget_versions_before: datetime) -> None:
        """Forget old deletions, and old commits that no tag keeps."""
        self._bell.check()
        old = {row_id: version for row_id, (version, at) in self._deletions.items() if at < forget_deletions_before}
        self._forgotten = max(self._forgotten, *old.values(), 0)
        self._deletions = {row_id: entry for row_id, entry in self._deletions.items() if row_id not in old}

        kept = {self.version, *self._tags.values()}
        self._commits = {n: at for n, at in self._commits.items() if n in kept or at >= forget_versions_before}
        self._forget_past()

    async def purge(self) -> None:
        """Forget all that is past."""
        future = datetime.now(UTC) + timedelta(days=1)
        await self.tidy(future, future)

    async def as_of(self, version: int) -> Snapshot:
        """Gather what each row was."""
        self._bell.check()
        if version not in self._commits:
            raise VersionExpiredError(self._definition.name, str(Version(self._definition.uid, version)))
        states = {row_id: _state(states, version) for row_id, states in self._past.items()}
        rows = {row_id: row for row_id, row in states.items() if row is not None}
        place = bisect_right(self._definitions, version, key=lambda entry: entry[0])
        return MemorySnapshot(self._definitions[place - 1][1], version, rows, self._bell)

    async def tag(self, name: str, version: int) -> None:
        """Note the name."""
        await self.as_of(version)
        self._tags.setdefault(name, version)

    async def tags(self) -> Mapping[str, int]:
        """Return what was noted."""
        self._bell.check()
        return dict(self._tags)

    async def untag(self, name: str) -> bool:
        """Forget the name."""
        self._bell.check()
        return self._tags.pop(name, None) is not None

    def _newest(self) -> "MemorySnapshot":
        self._bell.check()
        return MemorySnapshot(self._definition, self.version, self._rows, self._bell)

    def _forget_past(self) -> None:
        """Forget what no commit that is known shows."""
        commits = sorted(self._commits)
        for row_id, states in list(self._past.items()):
            shown = {_place(states, commit) for commit in commits} - {0}
            kept = [states[place - 1] for place in sorted(shown)]
            if any(row is not None for _, row in kept):
                self._past[row_id] = kept
            else:
                del self._past[row_id]

    def _last_change(self, row_id: str) -> int:
        removed, _ = self._deletions.get(row_id, (0, None))
        return max(self._written.get(row_id, 0), removed)


class MemorySnapshot:
    """`Snapshot` as a dict."""

    def __init__(
        self, definition: CollectionSchema, version: int, rows: Mapping[str, Row], bell: CommitNotifier
    ) -> None:
        self._definition = definition
        self._version = version
        self._rows = rows
        self._bell = bell

    @property
    def definition(self) -> CollectionSchema:
        """The collection as of the commit."""
        return self._definition

    @property
    def version(self) -> int:
        """The commit."""
        return self._version

    async def get(self, ids: Collection[str], parts: Parts) -> RowLookup:
        """Look the rows up."""
        self._bell.check()
        rows = {row_id: _only(self._rows[row_id], parts) for row_id in ids if row_id in self._rows}
        return RowLookup(self._version, rows)

    async def page(self, after: str | None, limit: int, parts: Parts) -> list[Row]:
        """Sort the ids."""
        self._bell.check()
        ids = sorted(row_id for row_id in self._rows if after is None or row_id > after)
        return [_only(self._rows[row_id], parts) for row_id in ids[:limit]]

    async def scan(self, parts: Parts) -> AsyncGenerator[list[Row], None]:
        """Yield the rows."""
        self._bell.check()
        rows = [_only(row, parts) for row in self._rows.values()]
        for start in range(0, len(rows), BATCH_ROWS):
            yield rows[start : start + BATCH_ROWS]

    async def count(self) -> int:
        """Count the rows."""
        self._bell.check()
        return len(self._rows)


def _state(states: Sequence[tuple[int, Row | None]], version: int) -> Row | None:
    """Return what a row with `states`, by commit, was as of `version`; None where there was none."""
    place = _place(states, version)
    return states[place - 1][1] if place else None


def _place(states: Sequence[tuple[int, Row | None]], version: int) -> int:
    """Return how many of `states` are of commits up to `version`."""
    return bisect_right(states, version, key=lambda state: state[0])


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
