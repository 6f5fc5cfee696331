"""A catalogue of Lance tables, on whatever shelf they are."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import lance

from services.common.concurrency.executors import BoundedExecutor
from services.common.concurrency.tasks import background_tasks, run_periodically
from services.common.errors import CollectionNotFoundError, ServiceUnavailableError
from services.store.adapters.lance.arrow import schema_of
from services.store.adapters.lance.location import TableDirectory
from services.store.adapters.lance.table import LanceTable, create_dataset, open_dataset, raise_as_ours
from services.store.core.rows import CollectionSchema
from services.store.core.table import Table

log = logging.getLogger(__name__)


class LanceCatalogue:
    """`Catalogue` over one shelf, for several processes at a time."""

    def __init__(
        self,
        shelf: TableDirectory,
        *,
        executor: BoundedExecutor,
        upkeep: BoundedExecutor,
        index_cache_bytes: int,
        metadata_cache_bytes: int,
    ) -> None:
        self._shelf = shelf
        self._executor = executor
        self._upkeep = upkeep
        self._session = lance.Session(  # type: ignore[attr-defined]  # exported at run time only
            index_cache_size_bytes=index_cache_bytes, metadata_cache_size_bytes=metadata_cache_bytes
        )
        self._tables: dict[str, LanceTable] = {}
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def running(self, poll_seconds: float) -> AsyncIterator[None]:
        """Clear away what a crash has left; then look for commits by other processes while the block runs."""
        await self._upkeep.run(self._shelf.heal)
        async with background_tasks(run_periodically(self._refresh, poll_seconds, "looking for commits")):
            yield

    async def create(self, definition: CollectionSchema) -> Table:
        """Make the table, then the definition that says so."""
        async with self._turn:
            await self._executor.run(self._create, definition)
            return await self._opened(definition.name)

    async def open(self, name: str) -> Table:
        """Return the open table, or open it."""
        table = self._tables.get(name)
        if table is not None and not table.closed:
            return table
        async with self._turn:
            return await self._opened(name)

    async def names(self) -> list[str]:
        """Ask the shelf."""
        return await self._executor.run(self._shelf.names)

    async def drop(self, name: str) -> None:
        """Remove the definition, then the table."""
        async with self._turn:
            table = await self._opened(name)
            await self._executor.run(self._shelf.retract, table.definition)
            del self._tables[name]
            await table.close()
            await self._executor.run(self._shelf.discard, table.definition)

    async def _opened(self, name: str) -> LanceTable:
        table = self._tables.get(name)
        if table is None or table.closed:
            table = self._tables[name] = await self._executor.run(self._open, name)
        return table

    async def _refresh(self) -> None:
        for table in list(self._tables.values()):
            try:
                await table.refresh()
            except CollectionNotFoundError:
                continue  # dropped; it tells who waits
            except ServiceUnavailableError as error:
                log.warning("cannot look for commits of %s: %s", table.definition.name, error)
            except Exception:
                log.exception("cannot look for commits of %s", table.definition.name)

    def _open(self, name: str) -> LanceTable:
        definition = self._shelf.definition(name)
        if definition is None:
            raise CollectionNotFoundError(name)
        place = self._shelf.place(definition)
        try:
            dataset = open_dataset(place, self._session)
        except (OSError, ValueError) as error:
            raise_as_ours(error, place.uri)
            raise
        return LanceTable(
            definition,
            dataset,
            place.files,
            lambda: self._shelf.definition(name) == definition,
            executor=self._executor,
            upkeep=self._upkeep,
        )

    def _create(self, definition: CollectionSchema) -> None:
        place = self._shelf.place(definition)
        try:
            with self._shelf.creating(definition):
                create_dataset(place, schema_of(definition), self._session)
                self._shelf.publish(definition)
        except OSError as error:
            raise_as_ours(error, place.uri)
            raise
