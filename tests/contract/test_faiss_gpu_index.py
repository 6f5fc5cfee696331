"""FAISS on a GPU; where there is none, its blocks lie in FAISS's half-precision indexes for CPUs."""

from typing import Any

import faiss
import numpy as np
import pytest

from services.common.errors import ServiceUnavailableError
from services.common.vectors import Metric
from services.search.adapters import faiss_gpu
from services.search.adapters.device_memory import DeviceMemory
from services.search.adapters.faiss_gpu import FaissDevice, FaissGpuIndex, Flats
from services.search.core.errors import IndexTooLargeError
from services.search.core.vector_index import Selection
from tests.contract.vector_index import MakeIndex, VectorIndexContract

ON_A_GPU = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


class HalvesInMemory:
    def __init__(self, limit_bytes: int | None = None) -> None:
        self.memory = DeviceMemory("cpu", limit_bytes=limit_bytes, free_bytes=None, workspace_bytes=0)
        self.searched = 0

    def flat(self, dimensions: int, metric: Metric) -> Any:
        kind = faiss.METRIC_L2 if metric is Metric.EUCLIDEAN else faiss.METRIC_INNER_PRODUCT
        return faiss.IndexScalarQuantizer(dimensions, faiss.ScalarQuantizer.QT_fp16, kind)


class TestFaissGpuIndexInMemory(VectorIndexContract):
    MEMORY_AT_MOST = 2.0

    @pytest.fixture
    def device(self) -> Flats:
        return HalvesInMemory()

    @pytest.fixture
    def make_index(self, device: Flats, monkeypatch: pytest.MonkeyPatch) -> MakeIndex:
        def make(dimensions: int, metric: Metric) -> FaissGpuIndex:
            monkeypatch.setattr(faiss_gpu, "BLOCK_BYTES", 2 * 500 * dimensions)
            return FaissGpuIndex(dimensions, metric, device)

        return make


@pytest.mark.skipif(not ON_A_GPU, reason="needs the extra gpu and a GPU")
class TestFaissGpuIndex(TestFaissGpuIndexInMemory):
    @pytest.fixture
    def device(self) -> Flats:
        return FaissDevice("cuda", 8 * 2**30)


@pytest.mark.parametrize("metric", Metric)
def test_what_halves_tell_apart_is_answered_by_the_copies(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(1).standard_normal((5000, 32)).astype(np.float32)
    index = FaissGpuIndex(32, metric, HalvesInMemory())
    index.write(np.arange(5000), vectors)

    def refuse(*_: object) -> None:
        raise AssertionError("the copies are not enough")

    monkeypatch.setattr(index._exact, "search", refuse)
    for slots in (np.arange(5000), np.arange(0, 5000, 2)):
        (ranking,) = index.search(vectors[:1] * 1.1, 10, Selection.of(slots, 5000))
        assert ranking.slots[0] == 0 or metric is Metric.DOT_PRODUCT


def test_a_gpu_without_room_refuses_before_anything_is_written() -> None:
    index = FaissGpuIndex(32, Metric.COSINE, HalvesInMemory(limit_bytes=64 * 100))
    index.write(np.arange(100), np.ones((100, 32), np.float32))
    with pytest.raises(IndexTooLargeError):
        index.write(np.arange(100, 101), np.ones((1, 32), np.float32))
    assert index.search(np.ones((1, 32), np.float32), 1, Selection.of(np.arange(100), 100))[0].scores[0] == 1


def test_slots_written_while_a_search_copies_blocks_are_none_of_its_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_gpu, "BLOCK_BYTES", 2 * 500 * 32)
    vectors = np.random.default_rng(1).standard_normal((700, 32)).astype(np.float32)
    device = HalvesInMemory()
    index = FaissGpuIndex(32, Metric.COSINE, device)
    index.write(np.arange(600), vectors[:600])
    flat, later = device.flat, [np.arange(600, 700)]

    def flat_after_a_write(dimensions: int, metric: Metric) -> Any:
        while later:
            index.write(slots := later.pop(), vectors[slots])
        return flat(dimensions, metric)

    monkeypatch.setattr(device, "flat", flat_after_a_write)
    (ranking,) = index.search(vectors[650:651], 100, Selection.of(np.arange(600), 600))
    (expected,) = index._exact.search(vectors[650:651], 100, Selection.of(np.arange(600), 600))
    assert ranking.slots.tolist() == expected.slots.tolist()


@pytest.mark.skipif(ON_A_GPU, reason="needs a machine without a GPU, or the package for CPUs")
def test_without_the_package_for_gpus_none_is_taken() -> None:
    with pytest.raises((ImportError, ServiceUnavailableError)):
        FaissDevice("cuda", 2**30)
