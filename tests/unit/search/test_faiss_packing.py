"""Codes of what a filter leaves are packed once searches come back to it, and no answer changes by that."""

import threading
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from services.common.index_config import VectorStorage
from services.common.vectors import Matrix, Metric
from services.search.adapters.faiss import FaissIndex
from services.search.adapters.faiss_packing import PACKED_AT
from services.search.adapters.faiss_segments import PACKED_SHARE, PACKED_UP_TO
from services.search.core.vector_index import Selection
from tests.contract.vector_index import assert_exact
from tests.unit.search.directions import DIMENSIONS, along_few_directions

ROWS, TOP_K = 10_000, 10


QUERIES = along_few_directions(np.random.default_rng(3), PACKED_AT + 2, 0.02)


@pytest.fixture(params=Metric)
def metric(request: pytest.FixtureRequest) -> Metric:
    assert isinstance(request.param, Metric)
    return request.param


@pytest.fixture
def index(metric: Metric) -> FaissIndex:
    made = FaissIndex(DIMENSIONS, metric)
    made.write(np.arange(ROWS), along_few_directions(np.random.default_rng(2), ROWS, 0.02))
    made.settle()
    return made


def every(step: int, first: int = 0) -> Selection:
    return Selection.of(np.arange(first, ROWS, step), ROWS)


def assert_each_exact(index: FaissIndex, metric: Metric, selection: Selection, queries: Matrix = QUERIES) -> None:
    for query in queries:
        assert_exact(index, metric, query, TOP_K, selection)


def sizes(index: FaissIndex, selection: Selection, queries: Matrix) -> Iterator[int]:
    yield index.memory_bytes
    for query in queries:
        index.search(query[None], TOP_K, selection)
        yield index.memory_bytes


def test_a_filter_is_packed_once_searches_come_back_to_it(index: FaissIndex, metric: Metric) -> None:
    grown = [after - before for before, after in pairwise(sizes(index, every(3), QUERIES))]
    assert np.count_nonzero(grown) == 1
    assert not grown[0]
    assert_each_exact(index, metric, every(3))


def test_filters_that_come_once_are_not_packed(index: FaissIndex, metric: Metric) -> None:
    before = index.memory_bytes
    for first in range(2 * PACKED_AT):
        assert_each_exact(index, metric, every(20, first), QUERIES[:1])
    assert index.memory_bytes == before


def test_what_is_written_is_found_by_the_next_search_of_the_same_selection(index: FaissIndex, metric: Metric) -> None:
    selection = every(2)
    assert_each_exact(index, metric, selection)
    for seed in (4, 5):
        index.write(np.arange(0, 500), along_few_directions(np.random.default_rng(seed), 500, 0.02))
        assert_each_exact(index, metric, selection)


def test_what_is_coded_otherwise_is_packed_anew(index: FaissIndex, metric: Metric) -> None:
    selection = every(2)
    for storage in (VectorStorage.INT8, VectorStorage.FLOAT16, VectorStorage.FLOAT32, VectorStorage.INT8):
        index.store_as(storage)
        assert_each_exact(index, metric, selection)
        index.settle()
        assert_each_exact(index, metric, selection)


def test_filters_take_no_more_memory_than_there_is_for_them(index: FaissIndex, metric: Metric) -> None:
    for first in range(8):
        assert_each_exact(index, metric, Selection.of(np.arange(first * 500, first * 500 + ROWS // 2), ROWS))
        assert index.memory_bytes <= PACKED_UP_TO * 4 * DIMENSIONS * ROWS


def test_what_leaves_almost_everything_is_not_packed(index: FaissIndex, metric: Metric) -> None:
    before = index.memory_bytes
    assert_each_exact(index, metric, Selection.of(np.arange(int(PACKED_SHARE * ROWS) + 1), ROWS))
    assert index.memory_bytes == before


def test_searches_pack_while_others_write(index: FaissIndex, metric: Metric) -> None:
    selection, stop = every(2), threading.Event()
    others, written = np.arange(1, ROWS, 2), along_few_directions(np.random.default_rng(6), 400, 0.02)

    def write() -> None:
        while not stop.is_set():
            index.write(others[: len(written)], written)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(10):
            assert_each_exact(index, metric, selection)
    finally:
        stop.set()
        writer.join()


def test_codes_that_become_wide_leave_no_room_for_copies(index: FaissIndex, metric: Metric) -> None:
    before = index.memory_bytes
    assert_each_exact(index, metric, every(2))
    assert index.memory_bytes > before
    index.store_as(VectorStorage.FLOAT32)
    assert index.memory_bytes == 4 * DIMENSIONS * ROWS
    index.store_as(VectorStorage.FLOAT16)
    unpacked = FaissIndex(DIMENSIONS, metric, storage=VectorStorage.FLOAT16)
    unpacked.write(np.arange(ROWS), index.vectors(np.arange(ROWS)))
    assert_each_exact(index, metric, every(2))
    assert index.memory_bytes == unpacked.memory_bytes
