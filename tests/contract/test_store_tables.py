from collections.abc import AsyncIterator
from pathlib import Path

import lance
import pytest

from services.common.concurrency.executors import BoundedExecutor
from services.store.adapters.fsync import commit_files
from services.store.adapters.lance.catalog import LanceCatalog
from services.store.adapters.lance.folder_directory import FolderTableDirectory
from services.store.adapters.memory_tables import MemoryCatalog
from services.store.core.row_cache import CACHED_FIELDS, CachedCatalog, RowCache
from services.store.core.table import Table, TableCatalog, WriteConflictError
from tests.contract.store_tables import EARLIER, LATER, CatalogContract, TableContract, full_row, row

CACHE_BYTES = 16 * 2**20


class InMemory:
    @pytest.fixture
    async def catalog(self) -> TableCatalog:
        return MemoryCatalog()


class InLance:
    @pytest.fixture
    async def in_lance(self, tmp_path: Path) -> AsyncIterator[LanceCatalog]:
        async with BoundedExecutor("rows", 4) as threads, BoundedExecutor("maintenance", 1) as maintenance:
            catalog = LanceCatalog(
                FolderTableDirectory(tmp_path),
                executor=threads,
                maintenance_executor=maintenance,
                index_cache_bytes=CACHE_BYTES,
                metadata_cache_bytes=CACHE_BYTES,
            )
            async with catalog.running(poll_seconds=0.05):
                yield catalog

    @pytest.fixture
    async def catalog(self, in_lance: LanceCatalog) -> TableCatalog:
        return in_lance


class InLanceCached(InLance):
    @pytest.fixture
    async def catalog(self, in_lance: LanceCatalog) -> AsyncIterator[TableCatalog]:
        cached = CachedCatalog(in_lance, RowCache(CACHE_BYTES))
        async with cached.loading():
            yield cached


class TestMemoryCatalog(InMemory, CatalogContract):
    pass


class TestLanceCatalog(InLance, CatalogContract):
    pass


class TestCachedCatalog(InLanceCached, CatalogContract):
    pass


class TestMemoryTable(InMemory, TableContract):
    pass


class TestLanceTable(InLance, TableContract):
    async def test_a_write_on_a_commit_that_expired_is_a_conflict(self, table: Table) -> None:
        read = await table.write([row("a")], [], table.version)
        await table.write([row("b")], [], table.version)
        await table.optimize(EARLIER, LATER)
        with pytest.raises(WriteConflictError):
            await table.write([row("c")], [], read)

    async def test_the_files_of_a_commit_are_known(self, table: Table, tmp_path: Path) -> None:
        """A file that Lance names otherwise would not be synced, and nobody would notice."""
        folder = tmp_path / "rows" / "u1.lance"
        for _ in range(12):
            await table.write([row("a"), row("b")], [], table.version)
        await table.optimize(EARLIER, LATER)
        await table.write([row("c"), row("d")], [], table.version)
        await table.write([row("a")], ["c"], table.version)
        dataset = lance.dataset(str(folder))
        assert dataset.version == table.version
        known = set(commit_files(folder, dataset))
        assert all(path.exists() for path in known)
        assert {path.parent.name for path in known} >= {"data", "_deletions", "_versions", "_indices"}


class TestCachedTable(InLanceCached, TableContract):
    async def test_a_cached_row_is_the_stored_row(self, table: Table) -> None:
        await table.get(["full"], CACHED_FIELDS)
        await table.write([full_row()], [], table.version)
        kept = (await table.get(["full"], CACHED_FIELDS)).rows["full"]
        stored = (await (await table.as_of(table.version)).get(["full"], CACHED_FIELDS)).rows["full"]
        for name in ("id", "content", "text", "media", "metadata_json", "spaces", "revision", "created", "updated"):
            assert getattr(kept, name) == getattr(stored, name), name
        assert kept.vectors == {}
