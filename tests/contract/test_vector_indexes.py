import threading
from functools import partial

import numpy as np
import pytest

from services.common.index_config import VectorStorage
from services.common.vectors import Matrix, Metric
from services.search.adapters import faiss, faiss_packing, faiss_segments
from services.search.adapters.faiss import FaissIndex
from services.search.adapters.faiss_axes import Axes
from services.search.adapters.faiss_choice import Trial
from services.search.adapters.faiss_codes import Coding
from services.search.core.vector_index import Numbers, Ranking, Selection
from services.search.engines.memory.vector_index import MemoryIndex
from tests.contract.vector_index import MakeIndex, VectorIndexContract, everything, filled


class TestMemoryIndex(VectorIndexContract):
    @pytest.fixture
    def make_index(self) -> MakeIndex:
        return MemoryIndex


@pytest.mark.slow
class TestFaissIndexOfFloat32(VectorIndexContract):
    @pytest.fixture
    def make_index(self) -> MakeIndex:
        return partial(FaissIndex, storage=VectorStorage.FLOAT32)


@pytest.mark.slow
class TestFaissIndexOfFloat16(VectorIndexContract):
    MEMORY_AT_MOST = 1.6

    @pytest.fixture
    def make_index(self) -> MakeIndex:
        return partial(FaissIndex, storage=VectorStorage.FLOAT16)


class TestFaissIndexOfInt8(VectorIndexContract):
    @pytest.fixture
    def make_index(self) -> MakeIndex:
        return FaissIndex


@pytest.mark.slow
class TestFaissIndexOfManySegments(VectorIndexContract):
    """All storages in segments of 64 rows, searched by two threads; any vectors are coded, and codes packed at once."""

    MEMORY_AT_MOST = 1.6

    @pytest.fixture(params=VectorStorage, ids=lambda storage: storage.value.lower())
    def make_index(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> MakeIndex:
        monkeypatch.setattr(faiss, "EXPANSION_AT_MOST", 100)
        monkeypatch.setattr(faiss_packing, "PACKED_AT", 1)
        monkeypatch.setattr(faiss_segments, "PACKED_SHARE", 1)
        monkeypatch.setattr(faiss_segments, "PACKED_UP_TO", 100)

        def make(dimensions: int, metric: Metric) -> FaissIndex:
            monkeypatch.setattr(faiss_segments, "SEGMENT_BYTES", 64 * 4 * dimensions)
            return FaissIndex(dimensions, metric, storage=request.param, threads=2)

        return make


@pytest.mark.slow
class TestFaissIndexOfNarrowCodes(VectorIndexContract):
    """Vectors of any dimension narrowed along axes that do not suit them: bounds are loose, and answers right."""

    @pytest.fixture
    def make_index(self, monkeypatch: pytest.MonkeyPatch) -> MakeIndex:
        def narrow(trial: Trial, current: Coding, wide: Coding, metric: Metric) -> Coding:
            dimensions = trial.vectors.shape[1]
            numbers = np.random.default_rng(dimensions).standard_normal((dimensions, dimensions // 3 + 1))
            axes = np.linalg.qr(numbers)[0].T.astype(np.float32)
            return Coding(dimensions, metric, VectorStorage.INT8, Axes(axes))

        monkeypatch.setattr(faiss, "EXPANSION_AT_MOST", 100)
        monkeypatch.setattr(faiss, "CHOICE_ROWS", 32)
        monkeypatch.setattr(faiss, "narrowable", lambda dimensions: True)
        monkeypatch.setattr(faiss, "chosen", narrow)
        return ChoosingAtOnce


class ChoosingAtOnce(FaissIndex):
    def write(self, slots: Numbers, vectors: Matrix) -> None:
        super().write(slots, vectors)
        self.settle()


@pytest.mark.parametrize("metric", Metric)
def test_storage_can_change_under_searches(metric: Metric) -> None:
    random = np.random.default_rng(4)
    vectors = random.standard_normal((4000, 250)).astype(np.float32)
    queries = random.standard_normal((5, 250)).astype(np.float32)
    oracle = filled(MemoryIndex, vectors, metric)
    index = FaissIndex(250, metric)
    index.write(np.arange(4000), vectors)
    selections = [everything(4000), Selection.of(np.arange(0, 4000, 2), 4000)]
    wanted = [list(map(spelt, oracle.search(queries, 10, selection))) for selection in selections]
    changed = threading.Event()
    found: list[object] = []

    def search() -> None:
        while not changed.is_set() or not found:
            found.append([list(map(spelt, index.search(queries, 10, selection))) for selection in selections])

    readers = [threading.Thread(target=search) for _ in range(2)]
    for reader in readers:
        reader.start()
    sizes = {}
    for storage in [VectorStorage.FLOAT32, VectorStorage.FLOAT16, VectorStorage.INT8] * 3:
        index.store_as(storage)
        sizes[storage] = index.memory_bytes
    changed.set()
    for reader in readers:
        reader.join()
    assert all(each == wanted for each in found)
    assert sizes[VectorStorage.FLOAT32] == 4000 * 1000 < sizes[VectorStorage.INT8] < sizes[VectorStorage.FLOAT16]


def spelt(ranking: Ranking) -> dict[int, float]:
    return dict(zip(ranking.slots.tolist(), ranking.scores.tolist(), strict=True))
