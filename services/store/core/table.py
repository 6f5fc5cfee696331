"""What the store asks of a table format: a catalogue of tables, and tables of rows."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.common.index_config import IndexConfig
from services.common.vectors import Matrix
from services.store.core.rows import CollectionSchema, Parts, Row

BATCH_ROWS = 2000


class WriteConflictError(Exception):
    """Another writer committed one of the rows since they were read; read again and decide anew."""


@dataclass(frozen=True, slots=True)
class RowLookup:
    """Rows by id as of commit `version`; ids without a row are left out."""

    version: int
    rows: Mapping[str, Row]


@dataclass(frozen=True, slots=True, eq=False)
class VectorColumn:
    """Vectors of one space for a list of rows: `values`, shape (rows, dimensions), zero where `present` is False."""

    values: Matrix
    present: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class ChangedRows:
    """At most `BATCH_ROWS` rows written, column by column, and as many ids of removed ones."""

    ids: Sequence[str]
    metadata_json: Sequence[str]
    vectors: Mapping[str, VectorColumn]
    deleted_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Changes:
    """All that changed up to commit `version`, each row once, as it is now, and the definition as of that commit.

    `complete` is False where deletions since then are no longer known: then `batches` holds every row there is.
    """

    version: int
    complete: bool
    definition: CollectionSchema
    batches: AsyncIterator[ChangedRows]


class Snapshot(Protocol):
    """The rows of one collection, by id, as of one commit, or of a table as of its newest.

    Raises as `Table` does; as of an older commit every method raises `VersionExpiredError` once it is no longer kept.
    What is kept and cannot be read, because files are missing, raises `RowsCorruptError`.
    """

    @property
    def definition(self) -> CollectionSchema:
        """The collection as of the commit."""
        ...

    @property
    def version(self) -> int:
        """The commit; the newest known here for a table."""
        ...

    async def get(self, ids: Collection[str], parts: Parts) -> RowLookup:
        """Return the rows of `ids`."""
        ...

    async def page(self, after: str | None, limit: int, parts: Parts) -> list[Row]:
        """Return the first `limit` rows, at most, with ids over `after`, in code point order of their ids."""
        ...

    def scan(self, parts: Parts) -> AsyncIterator[list[Row]]:
        """Yield all rows as of now, in any order, at most `BATCH_ROWS` at a time."""
        ...

    async def count(self) -> int:
        """Return how many rows there are."""
        ...


class Table(Snapshot, Protocol):
    """Rows of one collection, by id. Implementations pass `tests.contract.store_tables.TableContract`.

    Commits are numbered, ascending. A commit by another process is seen some time later. Once the table is dropped, by
    whomever, every method raises `CollectionNotFoundError`; where the disk is full, writes raise `StorageFullError`.
    """

    async def write(self, rows: Sequence[Row], deletions: Sequence[str], based_on: int) -> int:
        """Replace or add `rows` and remove `deletions`, ids that have a row, in one commit; return its number.

        An id comes once at most. When it returns, the commit outlives a crash.

        Raises:
            WriteConflictError: another writer committed one of these ids after `based_on`, or that is no longer kept;
                nothing was written.
        """
        ...

    async def configure(self, space: str, index: IndexConfig) -> int:
        """Change how a space is indexed, in one commit, as durable as a write; return the newest commit.

        What is so already makes no commit.

        Raises:
            SpaceNotFoundError: there is no such space.
            WriteConflictError: another writer changed the same; nothing was changed.
        """
        ...

    async def changes(self, after: int) -> Changes:
        """Return what changed after commit `after`; 0 is before the first."""
        ...

    async def newer_than(self, version: int) -> int:
        """Return the newest commit as soon as it is over `version`."""
        ...

    async def tidy(self, forget_deletions_before: datetime, forget_versions_before: datetime) -> None:
        """Make reading fast and free space; changes no row, may add commits.

        Deletions and old commits from before these moments are forgotten, but for commits with a tag; see
        `Changes.complete`.
        """
        ...

    async def purge(self) -> None:
        """See that nothing is kept any more of what neither a row nor a commit with a tag holds.

        All deletions, and all commits without a tag but the newest, are forgotten: reads of those under way for more
        than a few seconds fail.

        Raises:
            WriteConflictError: another writer came between; purge again.
        """
        ...

    async def as_of(self, version: int) -> Snapshot:
        """Return the rows as of commit `version`, 1 to the newest.

        Raises:
            VersionExpiredError: that commit is no longer kept.
        """
        ...

    async def tag(self, name: str, version: int) -> None:
        """Keep commit `version` under a name, durably, whatever is tidied; a name that is taken is left as it is.

        Raises:
            VersionExpiredError: that commit is no longer kept.
        """
        ...

    async def tags(self) -> Mapping[str, int]:
        """Return the commits kept, by name."""
        ...

    async def untag(self, name: str) -> bool:
        """Let go of a name; return whether there was one."""
        ...


class TableCatalog(Protocol):
    """Tables by name. Implementations pass `tests.contract.store_tables.CatalogueContract`.

    A crash in the middle of anything leaves a table that is there or not, and nothing that stands in its way.
    """

    async def create(self, definition: CollectionSchema) -> Table:
        """Create an empty table.

        Raises:
            CollectionExistsError: the name is taken, whatever its spaces.
            StorageFullError: no room.
        """
        ...

    async def open(self, name: str) -> Table:
        """Return the table of collection `name`; while it is there, the same object.

        Raises:
            CollectionNotFoundError: there is none.
        """
        ...

    async def names(self) -> list[str]:
        """Return the names of all collections, ascending."""
        ...

    async def drop(self, name: str) -> None:
        """Remove a table with all its rows.

        Raises:
            CollectionNotFoundError: there is none.
        """
        ...
