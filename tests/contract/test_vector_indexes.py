import pytest

from services.common.vectors import Metric
from services.search.adapters import faiss
from services.search.adapters.faiss import FaissIndex
from services.search.adapters.memory import MemoryIndex
from tests.contract.vector_index import MakeIndex, VectorIndexContract


class TestMemoryIndex(VectorIndexContract):
    @pytest.fixture
    def make_index(self) -> MakeIndex:
        return MemoryIndex


class TestFaissIndex(VectorIndexContract):
    @pytest.fixture
    def make_index(self) -> MakeIndex:
        return FaissIndex


class TestFaissIndexOfManySegments(VectorIndexContract):
    @pytest.fixture
    def make_index(self, monkeypatch: pytest.MonkeyPatch) -> MakeIndex:
        def make(dimensions: int, metric: Metric) -> FaissIndex:
            monkeypatch.setattr(faiss, "SEGMENT_BYTES", 64 * 4 * dimensions)
            return FaissIndex(dimensions, metric)

        return make
