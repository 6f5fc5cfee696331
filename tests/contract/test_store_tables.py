from collections.abc import AsyncIterator
from pathlib import Path

import lance
import pytest

from services.common.concurrency.executors import BoundedExecutor
from services.store.adapters.fsync import commit_files
from services.store.adapters.lance.catalog import LanceCatalogue
from services.store.adapters.lance.folder_location import FolderShelf
from services.store.adapters.memory_tables import MemoryCatalogue
from services.store.core.row_cache import KEPT, CachedCatalog, RowCache
from services.store.core.table import Table, TableCatalog, WriteConflictError
from tests.contract.store_tables import EARLIER, LATER, CatalogueContract, TableContract, full_row, row

CACHE_BYTES = 16 * 2**20


class InMemory:
    @pytest.fixture
    async def catalogue(self) -> TableCatalog:
        return MemoryCatalogue()


class InLance:
    @pytest.fixture
    async def in_lance(self, tmp_path: Path) -> AsyncIterator[LanceCatalogue]:
        async with BoundedExecutor("rows", 4) as threads, BoundedExecutor("upkeep", 1) as upkeep:
            catalogue = LanceCatalogue(
                FolderShelf(tmp_path),
                executor=threads,
                upkeep=upkeep,
                index_cache_bytes=CACHE_BYTES,
                metadata_cache_bytes=CACHE_BYTES,
            )
            async with catalogue.running(poll_seconds=0.05):
                yield catalogue

    @pytest.fixture
    async def catalogue(self, in_lance: LanceCatalogue) -> TableCatalog:
        return in_lance


class InLanceCached(InLance):
    @pytest.fixture
    async def catalogue(self, in_lance: LanceCatalogue) -> AsyncIterator[TableCatalog]:
        cached = CachedCatalog(in_lance, RowCache(CACHE_BYTES))
        async with cached.loading():
            yield cached


class TestMemoryCatalogue(InMemory, CatalogueContract):
    pass


class TestLanceCatalogue(InLance, CatalogueContract):
    pass


class TestCachedCatalogue(InLanceCached, CatalogueContract):
    pass


class TestMemoryTable(InMemory, TableContract):
    pass


class TestLanceTable(InLance, TableContract):
    async def test_a_write_on_a_commit_tidied_away_is_to_be_decided_anew(self, table: Table) -> None:
        read = await table.write([row("a")], [], table.version)
        await table.write([row("b")], [], table.version)
        await table.tidy(EARLIER, LATER)
        with pytest.raises(WriteConflictError):
            await table.write([row("c")], [], read)

    async def test_the_files_of_a_commit_are_known(self, table: Table, tmp_path: Path) -> None:
        """A file that Lance names otherwise would not be synced, and nobody would notice."""
        folder = tmp_path / "rows" / "u1.lance"
        for _ in range(12):
            await table.write([row("a"), row("b")], [], table.version)
        await table.tidy(EARLIER, LATER)
        await table.write([row("c"), row("d")], [], table.version)
        await table.write([row("a")], ["c"], table.version)
        dataset = lance.dataset(str(folder))
        assert dataset.version == table.version
        known = set(commit_files(folder, dataset))
        assert all(path.exists() for path in known)
        assert {path.parent.name for path in known} >= {"data", "_deletions", "_versions", "_indices"}


class TestCachedTable(InLanceCached, TableContract):
    async def test_a_row_kept_is_the_row_stored(self, table: Table) -> None:
        await table.get(["full"], KEPT)
        await table.write([full_row()], [], table.version)
        kept = (await table.get(["full"], KEPT)).rows["full"]
        stored = (await (await table.as_of(table.version)).get(["full"], KEPT)).rows["full"]
        for name in ("id", "content", "text", "media", "metadata_json", "spaces", "revision", "created", "updated"):
            assert getattr(kept, name) == getattr(stored, name), name
        assert kept.vectors == {}
