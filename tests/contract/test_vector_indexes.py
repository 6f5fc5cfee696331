import threading
from functools import partial

import numpy as np
import pytest

from services.common.index_config import VectorStorage
from services.common.vectors import Matrix, Metric
from services.search.core.vector_index import Ranking, Selection
from services.search.engines.faiss import filters, fitting, segment, vector_index
from services.search.engines.faiss.projection import BLOCK, PcaProjection, Projection, Rotation
from services.search.engines.faiss.vector_index import FaissIndex
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


class TestFaissIndexOfInt8(VectorIndexContract):
    @pytest.fixture
    def make_index(self) -> MakeIndex:
        return FaissIndex


@pytest.mark.slow
class TestFaissIndexOfManySegments(VectorIndexContract):
    """Segments of 64 rows, searched by two threads; codes are scanned however few there are, and copied at once."""

    MEMORY_AT_MOST = 1.6

    @pytest.fixture(params=[VectorStorage.FLOAT32, VectorStorage.INT8], ids=lambda storage: storage.value.lower())
    def make_index(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> MakeIndex:
        monkeypatch.setattr(vector_index, "SEGMENT_ROWS", 64)
        monkeypatch.setattr(segment, "LEAST_SPARE", 1)
        monkeypatch.setattr(segment, "SCANNED_SHARE", 1)
        monkeypatch.setattr(filters, "COPIED_AT_ONCE", 1)
        return partial(FaissIndex, storage=request.param, threads=2)


@pytest.mark.slow
class TestFaissIndexOfNarrowCodes(VectorIndexContract):
    """Vectors of any dimension projected along axes that do not suit them: bounds are loose, and answers right."""

    @pytest.fixture
    def make_index(self, monkeypatch: pytest.MonkeyPatch) -> MakeIndex:
        def choose(vectors: Matrix, rotation: Rotation) -> Projection:
            dimensions = vectors.shape[1]
            if dimensions < BLOCK:
                return rotation
            axes = np.linalg.qr(np.random.default_rng(dimensions).standard_normal((dimensions, BLOCK - 1)))[0]
            return PcaProjection(axes.T, BLOCK)

        monkeypatch.setattr(fitting, "CHOICE_ROWS", 32)
        monkeypatch.setattr(fitting, "choose_projection", choose)
        monkeypatch.setattr(segment, "LEAST_SPARE", 4)
        return FaissIndex


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
    for storage in [VectorStorage.FLOAT32, VectorStorage.INT8] * 3:
        index.store_as(storage)
        sizes[storage] = index.memory_bytes
    changed.set()
    for reader in readers:
        reader.join()
    assert all(each == wanted for each in found)
    assert sizes[VectorStorage.FLOAT32] == 4000 * 1000 < sizes[VectorStorage.INT8]


def spelt(ranking: Ranking) -> dict[int, float]:
    return dict(zip(ranking.slots.tolist(), ranking.scores.tolist(), strict=True))
