"""The ports to a table format: a catalog of tables, tables, and snapshots of their rows."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.common.index_config import IndexConfig
from services.common.vectors import Matrix
from services.store.core.rows import CollectionSchema, Row, RowFields

BATCH_ROWS = 2000


class WriteConflictError(Exception):
    """Another writer has changed one of the rows since they were read: read them again and retry."""


@dataclass(frozen=True, slots=True)
class RowLookup:
    """Rows by id as of commit `version`; ids without a row are missing."""

    version: int
    rows: Mapping[str, Row]


@dataclass(frozen=True, slots=True, eq=False)
class VectorColumn:
    """Vectors of one space for a list of rows: `values`, shape (rows, dimensions), zero where `present` is False."""

    values: Matrix
    present: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class ChangedRows:
    """At most `BATCH_ROWS` written rows, by column, and at most as many ids of deleted ones."""

    ids: Sequence[str]
    metadata_json: Sequence[str]
    vectors: Mapping[str, VectorColumn]
    deleted_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Changes:
    """All changes up to commit `version`, each row once in its newest state, and the schema as of that commit.

    `complete` is False if some deletions are no longer known: then `batches` has all rows of the table.
    """

    version: int
    complete: bool
    schema: CollectionSchema
    batches: AsyncIterator[ChangedRows]


class Snapshot(Protocol):
    """The rows of one collection as of one commit; a table is a snapshot of its newest commit.

    Methods raise the errors of `Table`, `VersionExpiredError` once the commit is no longer kept, and `RowsCorruptError`
    if files of a commit that is kept are missing.
    """

    @property
    def schema(self) -> CollectionSchema:
        """The collection's schema as of the commit."""
        ...

    @property
    def version(self) -> int:
        """The number of the commit; of a table, the newest that this process knows."""
        ...

    async def get(self, ids: Collection[str], fields: RowFields) -> RowLookup:
        """Return the rows of `ids`."""
        ...

    async def page(self, after: str | None, limit: int, fields: RowFields) -> list[Row]:
        """Return the first `limit` rows, or fewer, with ids greater than `after`, by id in code point order."""
        ...

    def scan(self, fields: RowFields) -> AsyncIterator[list[Row]]:
        """Yield all rows in any order, at most `BATCH_ROWS` at a time; of a table, as of the first step."""
        ...

    async def count(self) -> int:
        """Return how many rows there are."""
        ...


class Table(Snapshot, Protocol):
    """The rows of one collection. Implementations pass `tests.contract.store_tables.TableContract`.

    Commits have ascending numbers. A commit by another process becomes visible after a delay. Once any process has
    dropped the table, all methods raise `CollectionNotFoundError`; if the storage is full, writes raise
    `StorageFullError`.
    """

    async def write(self, rows: Sequence[Row], deletions: Sequence[str], base_version: int) -> int:
        """Insert or replace `rows` and delete the rows of `deletions` in one commit; return its number.

        Ids in `deletions` must have a row, and no id may come twice. The commit is durable.

        Raises:
            WriteConflictError: another writer changed one of these ids after `base_version`, or that commit is
                no longer kept; nothing was written.
        """
        ...

    async def configure(self, space: str, index: IndexConfig) -> int:
        """Change the index of a space in one durable commit; return the newest commit.

        If it has that index already, there is no commit.

        Raises:
            SpaceNotFoundError: there is no such space.
            WriteConflictError: another writer changed the same index; nothing was written.
        """
        ...

    async def changes(self, after: int) -> Changes:
        """Return the changes after commit `after`; 0 is before the first commit."""
        ...

    async def wait_for_commit(self, after: int) -> int:
        """Wait for a commit newer than `after`; return the newest one."""
        ...

    async def optimize(self, deletions_before: datetime, versions_before: datetime) -> None:
        """Compact files, extend the index and free space; no row changes, but there may be new commits.

        Deletions and commits older than these times expire, except commits with a tag; see `Changes.complete`.
        """
        ...

    async def purge(self) -> None:
        """Remove all data that neither the newest commit nor one with a tag contains.

        All deletions expire, and all commits but the newest and those with a tag: reads of them that take longer than a
        few seconds fail.

        Raises:
            WriteConflictError: another writer committed in between: purge again.
        """
        ...

    async def as_of(self, version: int) -> Snapshot:
        """Open the rows as of commit `version`, 1 to the newest.

        Raises:
            VersionExpiredError: that commit is no longer kept.
        """
        ...

    async def create_tag(self, name: str, version: int) -> None:
        """Tag commit `version`, durably, so that it never expires. If the tag exists already, nothing changes.

        Raises:
            VersionExpiredError: that commit is no longer kept.
        """
        ...

    async def tags(self) -> Mapping[str, int]:
        """Return the tagged commits, by tag."""
        ...

    async def delete_tag(self, name: str) -> bool:
        """Delete a tag; return whether there was one."""
        ...


class TableCatalog(Protocol):
    """Tables by name. Implementations pass `tests.contract.store_tables.CatalogContract`.

    After a crash a table either exists or does not, and its name can be created again if not.
    """

    async def create(self, schema: CollectionSchema) -> Table:
        """Create an empty table.

        Raises:
            CollectionExistsError: the name is taken.
            StorageFullError: the storage is full.
        """
        ...

    async def open(self, name: str) -> Table:
        """Return the table of collection `name`, the same object until it is dropped.

        Raises:
            CollectionNotFoundError: there is none.
        """
        ...

    async def names(self) -> list[str]:
        """Return the names of all collections, ascending."""
        ...

    async def drop(self, name: str) -> None:
        """Drop a table with all its rows.

        Raises:
            CollectionNotFoundError: there is none.
        """
        ...
