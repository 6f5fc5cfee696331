import pytest

from services.search.adapters.faiss import FaissIndex
from services.search.adapters.memory import MemoryIndex
from services.search.local_collection import LocalCollectionIndex
from tests.contract.collection_index import CollectionIndexContract, MakeCollection


class TestMemory(CollectionIndexContract):
    @pytest.fixture
    def make_collection(self) -> MakeCollection:
        return lambda table: LocalCollectionIndex(
            table.spaces, lambda space: MemoryIndex(space.dimensions, space.metric)
        )


class TestFaiss(CollectionIndexContract):
    @pytest.fixture
    def make_collection(self) -> MakeCollection:
        return lambda table: LocalCollectionIndex(
            table.spaces, lambda space: FaissIndex(space.dimensions, space.metric)
        )
