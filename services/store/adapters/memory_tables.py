"""Tables in memory, for tests and trials; they are lost when the process ends."""

from bisect import bisect_right
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from services.common.errors import CollectionNotFoundError, VersionExpiredError
from services.common.index_config import IndexConfig
from services.common.versions import Version
from services.store.core.commit_notifier import CommitNotifier
from services.store.core.errors import CollectionExistsError
from services.store.core.rows import CollectionSchema, Row, RowFields, Space, select_fields
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


class MemoryCatalog:
    """`TableCatalog` over a dict."""

    def __init__(self) -> None:
        self._tables: dict[str, MemoryTable] = {}

    async def create(self, schema: CollectionSchema) -> Table:
        if schema.name in self._tables:
            raise CollectionExistsError(schema.name)
        self._tables[schema.name] = MemoryTable(schema)
        return self._tables[schema.name]

    async def open(self, name: str) -> Table:
        if name not in self._tables:
            raise CollectionNotFoundError(name)
        return self._tables[name]

    async def names(self) -> list[str]:
        return sorted(self._tables)

    async def drop(self, name: str) -> None:
        if name not in self._tables:
            raise CollectionNotFoundError(name)
        self._tables.pop(name).close()


class MemoryTable:
    """`Table` over a dict of rows and one of deletions, with the history of each row and of the schema by commit."""

    def __init__(self, schema: CollectionSchema) -> None:
        self._schema = schema
        self._rows: dict[str, Row] = {}
        self._written: dict[str, int] = {}
        self._deletions: dict[str, tuple[int, datetime]] = {}
        self._history: dict[str, list[tuple[int, Row | None]]] = {}
        self._commits: dict[int, datetime] = {1: datetime.now(UTC)}
        self._schemas = [(1, schema)]
        self._tags: dict[str, int] = {}
        self._expired_deletions = 0
        self._notifier = CommitNotifier(schema.name, newest=1)

    @property
    def schema(self) -> CollectionSchema:
        return self._schema

    @property
    def version(self) -> int:
        return self._notifier.newest

    def close(self) -> None:
        """Mark the table as dropped."""
        self._notifier.mark_dropped()

    async def get(self, ids: Collection[str], fields: RowFields) -> RowLookup:
        return await self._newest_snapshot().get(ids, fields)

    async def page(self, after: str | None, limit: int, fields: RowFields) -> list[Row]:
        return await self._newest_snapshot().page(after, limit, fields)

    async def scan(self, fields: RowFields) -> AsyncGenerator[list[Row], None]:
        async for rows in self._newest_snapshot().scan(fields):
            yield rows

    async def count(self) -> int:
        return await self._newest_snapshot().count()

    async def write(self, rows: Sequence[Row], deletions: Sequence[str], base_version: int) -> int:
        self._notifier.raise_if_dropped()
        if any(self._last_change(row_id) > base_version for row_id in (*deletions, *(row.id for row in rows))):
            raise WriteConflictError
        version = self.version + 1
        for row in rows:
            self._deletions.pop(row.id, None)
            self._rows[row.id] = row
            self._written[row.id] = version
            self._history.setdefault(row.id, []).append((version, row))
        for row_id in deletions:
            del self._rows[row_id], self._written[row_id]
            self._deletions[row_id] = version, datetime.now(UTC)
            self._history[row_id].append((version, None))
        self._commits[version] = datetime.now(UTC)
        self._notifier.notify(version)
        return version

    async def configure(self, space: str, index: IndexConfig) -> int:
        self._notifier.raise_if_dropped()
        schema = self._schema.with_indexes({space: index})
        if schema == self._schema:
            return self.version
        version = self.version + 1
        self._schema = schema
        self._schemas.append((version, schema))
        self._commits[version] = datetime.now(UTC)
        self._notifier.notify(version)
        return version

    async def changes(self, after: int) -> Changes:
        self._notifier.raise_if_dropped()
        complete = after == 0 or self._expired_deletions <= after <= self.version
        cursor = after if complete else 0
        rows = [self._rows[row_id] for row_id, version in self._written.items() if version > cursor]
        deleted = [row_id for row_id, (version, _) in self._deletions.items() if version > cursor > 0]
        return Changes(self.version, complete, self._schema, _batches(self._schema.spaces, rows, deleted))

    async def wait_for_commit(self, after: int) -> int:
        return await self._notifier.wait(after)

    async def optimize(self, deletions_before: datetime, versions_before: datetime) -> None:
        self._notifier.raise_if_dropped()
        old = {row_id: version for row_id, (version, at) in self._deletions.items() if at < deletions_before}
        self._expired_deletions = max(self._expired_deletions, *old.values(), 0)
        self._deletions = {row_id: entry for row_id, entry in self._deletions.items() if row_id not in old}

        kept = {self.version, *self._tags.values()}
        self._commits = {n: at for n, at in self._commits.items() if n in kept or at >= versions_before}
        self._prune_history()

    async def purge(self) -> None:
        future = datetime.now(UTC) + timedelta(days=1)
        await self.optimize(future, future)

    async def as_of(self, version: int) -> Snapshot:
        self._notifier.raise_if_dropped()
        if version not in self._commits:
            raise VersionExpiredError(self._schema.name, str(Version(self._schema.uid, version)))
        states = {row_id: _state_at(states, version) for row_id, states in self._history.items()}
        rows = {row_id: row for row_id, row in states.items() if row is not None}
        count = bisect_right(self._schemas, version, key=lambda entry: entry[0])
        return MemorySnapshot(self._schemas[count - 1][1], version, rows, self._notifier)

    async def create_tag(self, name: str, version: int) -> None:
        await self.as_of(version)
        self._tags.setdefault(name, version)

    async def tags(self) -> Mapping[str, int]:
        self._notifier.raise_if_dropped()
        return dict(self._tags)

    async def delete_tag(self, name: str) -> bool:
        self._notifier.raise_if_dropped()
        return self._tags.pop(name, None) is not None

    def _newest_snapshot(self) -> "MemorySnapshot":
        self._notifier.raise_if_dropped()
        return MemorySnapshot(self._schema, self.version, self._rows, self._notifier)

    def _prune_history(self) -> None:
        """Remove the states of rows that no commit has."""
        commits = sorted(self._commits)
        for row_id, states in list(self._history.items()):
            visible = {_count_until(states, commit) for commit in commits} - {0}
            kept = [states[count - 1] for count in sorted(visible)]
            if any(row is not None for _, row in kept):
                self._history[row_id] = kept
            else:
                del self._history[row_id]

    def _last_change(self, row_id: str) -> int:
        removed, _ = self._deletions.get(row_id, (0, None))
        return max(self._written.get(row_id, 0), removed)


class MemorySnapshot:
    """`Snapshot` over a dict."""

    def __init__(
        self, schema: CollectionSchema, version: int, rows: Mapping[str, Row], notifier: CommitNotifier
    ) -> None:
        self._schema = schema
        self._version = version
        self._rows = rows
        self._notifier = notifier

    @property
    def schema(self) -> CollectionSchema:
        return self._schema

    @property
    def version(self) -> int:
        return self._version

    async def get(self, ids: Collection[str], fields: RowFields) -> RowLookup:
        self._notifier.raise_if_dropped()
        rows = {row_id: select_fields(self._rows[row_id], fields) for row_id in ids if row_id in self._rows}
        return RowLookup(self._version, rows)

    async def page(self, after: str | None, limit: int, fields: RowFields) -> list[Row]:
        self._notifier.raise_if_dropped()
        ids = sorted(row_id for row_id in self._rows if after is None or row_id > after)
        return [select_fields(self._rows[row_id], fields) for row_id in ids[:limit]]

    async def scan(self, fields: RowFields) -> AsyncGenerator[list[Row], None]:
        self._notifier.raise_if_dropped()
        rows = [select_fields(row, fields) for row in self._rows.values()]
        for start in range(0, len(rows), BATCH_ROWS):
            yield rows[start : start + BATCH_ROWS]

    async def count(self) -> int:
        self._notifier.raise_if_dropped()
        return len(self._rows)


def _state_at(states: Sequence[tuple[int, Row | None]], version: int) -> Row | None:
    """Return the row as of `version`, given its `states` by commit; None if there was none."""
    count = _count_until(states, version)
    return states[count - 1][1] if count else None


def _count_until(states: Sequence[tuple[int, Row | None]], version: int) -> int:
    """Return how many of `states` are of commits up to `version`."""
    return bisect_right(states, version, key=lambda state: state[0])


async def _batches(spaces: Sequence[Space], rows: list[Row], deleted: list[str]) -> AsyncGenerator[ChangedRows, None]:
    for start in range(0, max(len(rows), len(deleted)), BATCH_ROWS):
        batch = rows[start : start + BATCH_ROWS]
        vectors = {space.name: _column(space, batch) for space in spaces}
        removed = deleted[start : start + BATCH_ROWS]
        yield ChangedRows([row.id for row in batch], [row.metadata_json for row in batch], vectors, removed)


def _column(space: Space, rows: Sequence[Row]) -> VectorColumn:
    present = np.array([space.name in row.vectors for row in rows], dtype=np.bool_)
    values = np.zeros((len(rows), space.dimensions), np.float32)
    for position, row in enumerate(rows):
        if present[position]:
            values[position] = row.vectors[space.name]
    return VectorColumn(values, present)
