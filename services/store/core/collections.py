"""Creating, finding and dropping collections."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import uuid4

from services.common.errors import ArgumentError, CollectionNotFoundError, SpaceNotFoundError
from services.common.index_config import IndexConfig, validate_index_config
from services.common.names import validate_collection_name, validate_space_name
from services.common.vectors import MAX_DIMENSIONS
from services.store.core.committer import Committer
from services.store.core.errors import CollectionExistsError
from services.store.core.rows import CollectionSchema, Space
from services.store.core.table import Table, TableCatalog

MAX_SPACES = 16


@dataclass(frozen=True, slots=True)
class TablePage:
    """Some tables, by name; `last_name` is set if more follow."""

    tables: list[Table]
    last_name: str | None = None


class Collections:
    """Creates, finds and drops collections; a context manager whose exit waits for the writes in progress."""

    def __init__(self, catalog: TableCatalog, *, max_waiting_rows: int, clock: Callable[[], datetime]) -> None:
        self._catalog = catalog
        self._max_waiting_rows = max_waiting_rows
        self._clock = clock
        self._committers: dict[str, Committer] = {}

    async def __aenter__(self) -> "Collections":
        return self

    async def __aexit__(self, *_: object) -> None:
        for committer in list(self._committers.values()):
            await committer.drain()

    async def create(self, name: str, spaces: Sequence[Space]) -> Table:
        """Create a collection, or return the existing one if it has the same spaces, whatever their indexes.

        Raises:
            ArgumentError: the name, the number of spaces, or the dimensions or index of one are invalid.
            CollectionExistsError: the existing one has other spaces.
        """
        schema = CollectionSchema(validate_collection_name(name), uuid4().hex, _validate_spaces(spaces), self._clock())
        try:
            return await self._catalog.create(schema)
        except CollectionExistsError:
            table = await self._catalog.open(name)
            if _without_indexes(table.schema.spaces) != _without_indexes(spaces):
                raise
            return table

    async def table(self, name: str) -> Table:
        """Return the table of a collection.

        Raises:
            ArgumentError: the name is invalid.
            CollectionNotFoundError: there is none.
        """
        return await self._catalog.open(validate_collection_name(name))

    async def configure(self, name: str, space: str, index: IndexConfig) -> Table:
        """Change the index of a space, durably; return its table.

        Raises:
            ArgumentError: a name or the index is invalid.
            CollectionNotFoundError: no such collection.
            SpaceNotFoundError: it has no such space.
            OverloadedError: other processes keep committing first.
        """
        table = await self.table(name)
        known = table.schema.space(validate_space_name(space))
        if known is None:
            raise SpaceNotFoundError(space, [each.name for each in table.schema.spaces])
        await self.committer(table).configure(space, validate_index_config(index, known.dimensions))
        return table

    def committer(self, table: Table) -> Committer:
        """Return the only committer of `table` in this process."""
        uid = table.schema.uid
        if uid not in self._committers:
            self._committers[uid] = Committer(table, max_rows=self._max_waiting_rows, clock=self._clock)
        return self._committers[uid]

    async def page(self, after: str | None, size: int) -> TablePage:
        """Return the tables of at most `size` collections with names over `after`, by name."""
        names = [name for name in await self._catalog.names() if after is None or name > after]
        tables = await self._open_all(names[:size])
        return TablePage(tables, names[size - 1] if len(names) > size else None)

    async def tables(self) -> list[Table]:
        """Return the tables of all collections."""
        return await self._open_all(await self._catalog.names())

    async def drop(self, name: str) -> None:
        """Drop a collection with all its items; raises as `table` does."""
        table = await self.table(name)
        await self._catalog.drop(name)
        committer = self._committers.pop(table.schema.uid, None)
        if committer is not None:
            await committer.drain()

    async def _open_all(self, names: Sequence[str]) -> list[Table]:
        tables = []
        for name in names:
            try:
                tables.append(await self._catalog.open(name))
            except CollectionNotFoundError:
                continue  # dropped since
        return tables


def _without_indexes(spaces: Sequence[Space]) -> list[Space]:
    """Return `spaces` by name, without their indexes, which can change."""
    return sorted((replace(space, index=IndexConfig()) for space in spaces), key=lambda space: space.name)


def _validate_spaces(spaces: Sequence[Space]) -> tuple[Space, ...]:
    if not 1 <= len(spaces) <= MAX_SPACES:
        raise ArgumentError("spaces", len(spaces), f"there must be 1 to {MAX_SPACES}")
    for space in spaces:
        validate_space_name(space.name)
        if not 1 <= space.dimensions <= MAX_DIMENSIONS:
            raise ArgumentError("dimensions", space.dimensions, f"must be 1 to {MAX_DIMENSIONS}")
        validate_index_config(space.index, space.dimensions)
    if len({space.name for space in spaces}) < len(spaces):
        raise ArgumentError("spaces", ", ".join(space.name for space in spaces), "names must be unique")
    return tuple(spaces)
