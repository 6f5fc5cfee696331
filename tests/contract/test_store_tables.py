from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.store.adapters.lance_catalogue import LanceCatalogue
from services.store.adapters.memory_tables import MemoryCatalogue
from services.store.adapters.threads import Threads
from services.store.tables import Catalogue
from tests.contract.store_tables import CatalogueContract, TableContract

CACHE_BYTES = 16 * 2**20


class InMemory:
    @pytest.fixture
    async def catalogue(self) -> Catalogue:
        return MemoryCatalogue()


class InLance:
    @pytest.fixture
    async def catalogue(self, tmp_path: Path) -> AsyncIterator[Catalogue]:
        async with Threads("rows", 4) as threads, Threads("upkeep", 1) as upkeep:
            catalogue = LanceCatalogue(
                tmp_path,
                threads=threads,
                upkeep=upkeep,
                index_cache_bytes=CACHE_BYTES,
                metadata_cache_bytes=CACHE_BYTES,
            )
            async with catalogue.running(poll_seconds=0.05):
                yield catalogue


class TestMemoryCatalogue(InMemory, CatalogueContract):
    pass


class TestLanceCatalogue(InLance, CatalogueContract):
    pass


class TestMemoryTable(InMemory, TableContract):
    pass


class TestLanceTable(InLance, TableContract):
    pass
