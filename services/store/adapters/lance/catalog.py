"""A catalog of Lance tables, in a folder or a bucket."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import lance

from services.common.concurrency.executors import BoundedExecutor
from services.common.concurrency.tasks import background_tasks, run_periodically
from services.common.errors import CollectionNotFoundError, ServiceUnavailableError
from services.store.adapters.lance.arrow import columns_for
from services.store.adapters.lance.dataset import create_dataset, open_dataset
from services.store.adapters.lance.errors import raise_translated
from services.store.adapters.lance.table import LanceTable
from services.store.adapters.lance.table_directory import TableDirectory
from services.store.core.rows import CollectionSchema
from services.store.core.table import Table

log = logging.getLogger(__name__)


class LanceCatalog:
    """`TableCatalog` over one directory, for several processes at a time."""

    def __init__(
        self,
        directory: TableDirectory,
        *,
        executor: BoundedExecutor,
        maintenance_executor: BoundedExecutor,
        index_cache_bytes: int,
        metadata_cache_bytes: int,
    ) -> None:
        self._directory = directory
        self._executor = executor
        self._maintenance_executor = maintenance_executor
        self._session = lance.Session(  # type: ignore[attr-defined]  # exported at run time only
            index_cache_size_bytes=index_cache_bytes, metadata_cache_size_bytes=metadata_cache_bytes
        )
        self._tables: dict[str, LanceTable] = {}
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def running(self, poll_seconds: float) -> AsyncIterator[None]:
        """Remove what a crash has left; then look for commits by other processes while the block runs."""
        await self._maintenance_executor.run(self._directory.recover)
        async with background_tasks(run_periodically(self._refresh, poll_seconds, "looking for commits")):
            yield

    async def create(self, schema: CollectionSchema) -> Table:
        async with self._lock:
            await self._executor.run(self._create, schema)
            return await self._get_or_open(schema.name)

    async def open(self, name: str) -> Table:
        table = self._tables.get(name)
        if table is not None and not table.closed:
            return table
        async with self._lock:
            return await self._get_or_open(name)

    async def names(self) -> list[str]:
        return await self._executor.run(self._directory.names)

    async def drop(self, name: str) -> None:
        async with self._lock:
            table = await self._get_or_open(name)
            await self._executor.run(self._directory.unpublish, table.schema)
            del self._tables[name]
            await table.close()
            await self._executor.run(self._directory.delete_table, table.schema)

    async def _get_or_open(self, name: str) -> LanceTable:
        table = self._tables.get(name)
        if table is None or table.closed:
            table = self._tables[name] = await self._executor.run(self._open, name)
        return table

    async def _refresh(self) -> None:
        for table in list(self._tables.values()):
            try:
                await table.refresh()
            except CollectionNotFoundError:
                continue  # dropped, which wakes the callers that wait for a commit
            except ServiceUnavailableError as error:
                log.warning("cannot look for commits of %s: %s", table.schema.name, error)
            except Exception:
                log.exception("cannot look for commits of %s", table.schema.name)

    def _open(self, name: str) -> LanceTable:
        schema = self._directory.schema(name)
        if schema is None:
            raise CollectionNotFoundError(name)
        location = self._directory.location(schema)
        try:
            dataset = open_dataset(location, self._session)
        except (OSError, ValueError) as error:
            raise_translated(error, location.uri)
            raise
        return LanceTable(
            schema,
            dataset,
            location.files,
            lambda: self._directory.schema(name) == schema,
            executor=self._executor,
            maintenance_executor=self._maintenance_executor,
        )

    def _create(self, schema: CollectionSchema) -> None:
        location = self._directory.location(schema)
        try:
            with self._directory.reserve(schema):
                create_dataset(location, columns_for(schema), self._session)
                self._directory.publish(schema)
        except OSError as error:
            raise_translated(error, location.uri)
            raise
