from functools import partial

import pytest

from services.common.index_config import VectorStorage
from services.common.vectors import Metric
from services.search.adapters import faiss
from services.search.adapters.faiss import FaissIndex
from services.search.adapters.memory import MemoryIndex
from tests.contract.vector_index import MakeIndex, VectorIndexContract


class TestMemoryIndex(VectorIndexContract):
    @pytest.fixture
    def make_index(self) -> MakeIndex:
        return MemoryIndex


class TestFaissIndexOfFloat32(VectorIndexContract):
    @pytest.fixture
    def make_index(self) -> MakeIndex:
        return partial(FaissIndex, storage=VectorStorage.FLOAT32)


class TestFaissIndexOfFloat16(VectorIndexContract):
    MEMORY_AT_MOST = 1.6

    @pytest.fixture
    def make_index(self) -> MakeIndex:
        return partial(FaissIndex, storage=VectorStorage.FLOAT16)


class TestFaissIndexOfInt8(VectorIndexContract):
    @pytest.fixture
    def make_index(self) -> MakeIndex:
        return FaissIndex


class TestFaissIndexOfManySegments(VectorIndexContract):
    """All storages in segments of 64 rows, searched by two threads, and vectors of any dimension coded."""

    MEMORY_AT_MOST = 1.6

    @pytest.fixture(params=VectorStorage, ids=lambda storage: storage.value.lower())
    def make_index(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> MakeIndex:
        monkeypatch.setattr(faiss, "EXPANSION_AT_MOST", 100)

        def make(dimensions: int, metric: Metric) -> FaissIndex:
            monkeypatch.setattr(faiss, "SEGMENT_BYTES", 64 * 4 * dimensions)
            return FaissIndex(dimensions, metric, storage=request.param, threads=2)

        return make
