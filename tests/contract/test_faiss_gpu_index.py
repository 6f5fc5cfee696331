"""FAISS on a GPU; where there is none, its blocks lie in FAISS's half-precision indexes for CPUs."""

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import pytest

from services.common.errors import ServiceUnavailableError
from services.common.vectors import Matrix, Metric
from services.search.core.errors import IndexTooLargeError
from services.search.core.vector_index import Numbers, Selection
from services.search.engines.device.memory import DeviceMemory
from services.search.engines.faiss import gpu_vector_index
from services.search.engines.faiss.gpu_vector_index import FaissDevice, FaissGpuIndex, FlatDevice
from services.search.engines.memory import vectors as host_vectors
from services.search.engines.memory.vector_index import MemoryIndex
from tests.contract.vector_index import MakeIndex, VectorIndexContract

pytestmark = pytest.mark.slow

ON_A_GPU = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


class HalvesInMemory:
    def __init__(self, limit_bytes: int | None = None) -> None:
        self.memory = DeviceMemory("cpu", limit_bytes=limit_bytes, free_bytes=None, workspace_bytes=0)
        self.searched = 0

    def flat(self, dimensions: int) -> Any:
        return faiss.IndexScalarQuantizer(dimensions, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)


def index_on(device: FlatDevice, dimensions: int, metric: Metric) -> FaissGpuIndex:
    return FaissGpuIndex(dimensions, metric, MemoryIndex(dimensions, metric), device)


class TestFaissGpuIndexInMemory(VectorIndexContract):
    MEMORY_AT_MOST = 2.0

    @pytest.fixture
    def device(self) -> FlatDevice:
        return HalvesInMemory()

    @pytest.fixture
    def make_index(self, device: FlatDevice, monkeypatch: pytest.MonkeyPatch) -> MakeIndex:
        def make(dimensions: int, metric: Metric) -> FaissGpuIndex:
            monkeypatch.setattr(gpu_vector_index, "BLOCK_BYTES", 2 * 500 * dimensions)
            return index_on(device, dimensions, metric)

        return make


@pytest.mark.skipif(not ON_A_GPU, reason="needs the extra gpu and a GPU")
class TestFaissGpuIndex(TestFaissGpuIndexInMemory):
    @pytest.fixture
    def device(self) -> FlatDevice:
        return FaissDevice("cuda", 8 * 2**30)


@pytest.fixture
def without_the_host(monkeypatch: pytest.MonkeyPatch) -> Callable[[FaissGpuIndex], None]:
    def refuse(*_: object) -> None:
        raise AssertionError("the copies are not enough")

    return lambda index: monkeypatch.setattr(index._host, "search", refuse)


@pytest.mark.parametrize("metric", Metric)
def test_what_halves_tell_apart_is_answered_by_the_copies(
    metric: Metric, without_the_host: Callable[[FaissGpuIndex], None]
) -> None:
    vectors = np.random.default_rng(1).standard_normal((5000, 32)).astype(np.float32)
    index = index_on(HalvesInMemory(), 32, metric)
    index.write(np.arange(5000), vectors)
    without_the_host(index)
    for slots in (np.arange(5000), np.arange(0, 5000, 2)):
        (ranking,) = index.search(vectors[:1] * 1.1, 10, Selection.of(slots, 5000))
        assert ranking.slots[0] == 0 or metric is Metric.DOT_PRODUCT


def test_distances_far_smaller_than_lengths_are_told_apart_by_the_copies(
    without_the_host: Callable[[FaissGpuIndex], None],
) -> None:
    vectors = np.random.default_rng(1).standard_normal((5000, 32)).astype(np.float32) + np.float32(1000)
    index = index_on(HalvesInMemory(), 32, Metric.EUCLIDEAN)
    index.write(np.arange(5000), vectors)
    without_the_host(index)
    (ranking,) = index.search(vectors[7:8], 10, Selection.of(np.arange(5000), 5000))
    assert (ranking.slots[0], ranking.scores[0]) == (7, 0)


def test_a_gpu_without_room_refuses_before_anything_is_written() -> None:
    index = index_on(HalvesInMemory(limit_bytes=64 * 100), 32, Metric.COSINE)
    index.write(np.arange(100), np.ones((100, 32), np.float32))
    with pytest.raises(IndexTooLargeError):
        index.write(np.arange(100, 101), np.ones((1, 32), np.float32))
    assert index.search(np.ones((1, 32), np.float32), 1, Selection.of(np.arange(100), 100))[0].scores[0] == 1


def test_slots_written_while_a_search_copies_blocks_are_none_of_its_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_vector_index, "BLOCK_BYTES", 2 * 500 * 32)
    vectors = np.random.default_rng(1).standard_normal((700, 32)).astype(np.float32)
    device = HalvesInMemory()
    index = index_on(device, 32, Metric.COSINE)
    index.write(np.arange(600), vectors[:600])
    flat, later = device.flat, [np.arange(600, 700)]

    def flat_after_a_write(dimensions: int) -> Any:
        while later:
            index.write(slots := later.pop(), vectors[slots])
        return flat(dimensions)

    monkeypatch.setattr(device, "flat", flat_after_a_write)
    (ranking,) = index.search(vectors[650:651], 100, Selection.of(np.arange(600), 600))
    (expected,) = index._host.search(vectors[650:651], 100, Selection.of(np.arange(600), 600))
    assert ranking.slots.tolist() == expected.slots.tolist()


def test_room_is_not_searched_before_the_host_has_the_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_vectors, "SEGMENT_BYTES", 4 * 32 * 600)
    rows = np.random.default_rng(1).standard_normal((700, 32)).astype(np.float32)
    index = index_on(HalvesInMemory(), 32, Metric.COSINE)
    index.write(np.arange(600), rows[:600])
    write, found = index._host.write, []

    def search_and_write(slots: Numbers, written: Matrix) -> None:
        found.append(index.search(rows[7:8], 5, Selection.of(np.arange(600), 600))[0].slots[0])
        write(slots, written)

    monkeypatch.setattr(index._host, "write", search_and_write)
    index.write(np.arange(600, 700), rows[600:])
    assert found == [7]


@pytest.mark.skipif(ON_A_GPU, reason="needs a machine without a GPU, or the package for CPUs")
def test_without_the_package_for_gpus_none_is_taken() -> None:
    with pytest.raises((ImportError, ServiceUnavailableError)):
        FaissDevice("cuda", 2**30)
