"""Codes become as narrow as vectors and queries allow, filters are copied, and no answer changes by either."""

import threading
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from services.common.index_config import VectorStorage
from services.common.vectors import Matrix, Metric
from services.search.core.vector_index import Selection
from services.search.engines.faiss.filters import COPIED_AT, COPIED_SHARE
from services.search.engines.faiss.fitting import ScanTuner
from services.search.engines.faiss.vector_index import FaissIndex
from tests.contract.vector_index import assert_exact
from tests.unit.search.directions import DIMENSIONS, along_few_directions

ROWS, TOP_K = 10_000, 10
EVERYTHING = Selection.of(np.arange(ROWS), ROWS)
QUERIES = along_few_directions(np.random.default_rng(3), COPIED_AT + 2, 0.02)


def filled(vectors: Matrix, metric: Metric = Metric.COSINE) -> FaissIndex:
    index = FaissIndex(vectors.shape[1], metric)
    index.write(np.arange(len(vectors)), vectors)
    return index


def code_bytes(index: FaissIndex) -> float:
    return index.memory_bytes / ROWS - 4 * DIMENSIONS


def every(step: int, first: int = 0) -> Selection:
    return Selection.of(np.arange(first, ROWS, step), ROWS)


def assert_each_exact(index: FaissIndex, metric: Metric, selection: Selection, queries: Matrix = QUERIES) -> None:
    for query in queries:
        assert_exact(index, metric, query, TOP_K, selection)


@pytest.fixture(params=Metric)
def metric(request: pytest.FixtureRequest) -> Metric:
    assert isinstance(request.param, Metric)
    return request.param


@pytest.fixture
def index(metric: Metric) -> FaissIndex:
    return filled(along_few_directions(np.random.default_rng(2), ROWS, 0.02), metric)


def test_vectors_along_few_directions_take_narrow_codes(index: FaissIndex, metric: Metric) -> None:
    assert code_bytes(index) < DIMENSIONS / 2
    assert_each_exact(index, metric, EVERYTHING)


def test_vectors_along_all_directions_keep_wide_codes(metric: Metric) -> None:
    random = np.random.default_rng(3)
    index = filled(random.standard_normal((ROWS, DIMENSIONS)).astype(np.float32), metric)
    assert code_bytes(index) == DIMENSIONS
    assert_exact(index, metric, random.standard_normal((5, DIMENSIONS)).astype(np.float32), TOP_K, EVERYTHING)


def test_codes_become_wide_where_queries_lie_along_other_directions() -> None:
    random = np.random.default_rng(4)
    index = filled(along_few_directions(random, ROWS, 0.1))
    assert code_bytes(index) < DIMENSIONS / 2
    queries = random.standard_normal((8, DIMENSIONS)).astype(np.float32)
    for _ in range(ScanTuner.FALLBACKS):
        index.search(queries, TOP_K, EVERYTHING)
        index.settle()
    assert code_bytes(index) == DIMENSIONS
    assert_exact(index, Metric.COSINE, queries, TOP_K, EVERYTHING)


def test_a_stray_query_changes_no_codes(index: FaissIndex, metric: Metric) -> None:
    before = index.memory_bytes
    assert_exact(index, metric, np.random.default_rng(9).standard_normal(DIMENSIONS).astype(np.float32), 10, EVERYTHING)
    assert_each_exact(index, metric, EVERYTHING)
    index.settle()
    assert index.memory_bytes == before


def test_vectors_along_other_directions_get_other_codes(index: FaissIndex, metric: Metric) -> None:
    random = np.random.default_rng(5)
    index.write(np.arange(ROWS), random.standard_normal((ROWS, DIMENSIONS)).astype(np.float32))
    index.write(np.arange(ROWS), random.standard_normal((ROWS, DIMENSIONS)).astype(np.float32))
    assert code_bytes(index) == DIMENSIONS
    assert_each_exact(index, metric, EVERYTHING)


def test_one_vector_longer_than_all_leaves_the_others_their_codes(metric: Metric) -> None:
    vectors = along_few_directions(np.random.default_rng(10), ROWS, 0.02)
    vectors[17] *= np.float32(1e30)
    index = filled(vectors, metric)
    assert code_bytes(index) < DIMENSIONS / 2
    assert max(ranking.compared for ranking in index.search(QUERIES, TOP_K, EVERYTHING)) < ROWS / 8
    assert_exact(index, metric, QUERIES, TOP_K, EVERYTHING)


def test_an_empty_batch_finds_nothing(index: FaissIndex) -> None:
    assert not index.search(np.empty((0, DIMENSIONS), np.float32), TOP_K, EVERYTHING)


def test_float32_takes_no_memory_besides_the_vectors(index: FaissIndex, metric: Metric) -> None:
    before = index.memory_bytes
    index.store_as(VectorStorage.FLOAT32)
    assert code_bytes(index) == 0
    assert_each_exact(index, metric, every(2))
    index.store_as(VectorStorage.INT8)
    assert index.memory_bytes == before
    assert_each_exact(index, metric, every(2))


def test_a_filter_is_copied_once_searches_come_back_to_it(index: FaissIndex, metric: Metric) -> None:
    def sizes() -> Iterator[int]:
        yield index.memory_bytes
        for query in QUERIES:
            assert_exact(index, metric, query, TOP_K, selection)
            yield index.memory_bytes

    selection = every(3)
    grown = [after - before for before, after in pairwise(sizes())]
    assert np.count_nonzero(grown) == 1
    assert not grown[0]


@pytest.mark.parametrize("share", [1.1 * COPIED_SHARE, 1.0])
def test_what_leaves_almost_everything_is_not_copied(index: FaissIndex, metric: Metric, share: float) -> None:
    before = index.memory_bytes
    assert_each_exact(index, metric, Selection.of(np.arange(int(share * ROWS)), ROWS))
    assert index.memory_bytes == before


def test_codes_and_copies_take_no_more_than_wide_codes(index: FaissIndex, metric: Metric) -> None:
    for first in range(24):
        assert_each_exact(index, metric, Selection.of(np.arange(first * 200, first * 200 + ROWS // 2), ROWS))
        assert code_bytes(index) <= DIMENSIONS
    assert code_bytes(index) > DIMENSIONS / 2


def test_what_is_written_is_found_by_the_next_search_of_the_same_selection(index: FaissIndex, metric: Metric) -> None:
    selection = every(2)
    assert_each_exact(index, metric, selection)
    for seed in (4, 5):
        index.write(np.arange(0, 500), along_few_directions(np.random.default_rng(seed), 500, 0.02))
        assert_each_exact(index, metric, selection)


def test_codes_are_made_anew_next_to_searches_and_writes(metric: Metric) -> None:
    """Readers of a filter and a writer of what it leaves out, while codes are widened, dropped and made again."""
    vectors = along_few_directions(np.random.default_rng(6), ROWS, 0.1)
    index, seen, done = filled(vectors, metric), every(2), threading.Event()
    others = np.arange(1, ROWS, 2)
    failures: list[BaseException] = []

    def repeat(seed: int) -> None:
        random = np.random.default_rng(seed)
        try:
            while not done.is_set():
                if seed:
                    assert_exact(index, metric, random.standard_normal((3, DIMENSIONS)).astype(np.float32), 10, seen)
                else:
                    rows = random.choice(others, 300, replace=False)
                    index.write(np.sort(rows), along_few_directions(random, 300, 0.1) * 10 ** random.uniform(-2, 2))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=repeat, kwargs={"seed": seed}) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        for storage in [VectorStorage.FLOAT32, VectorStorage.INT8] * 4:
            index.store_as(storage)
            assert_exact(index, metric, QUERIES, TOP_K, seen)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    index.settle()
    assert not failures
    assert_exact(index, metric, QUERIES, TOP_K, EVERYTHING)


def test_scans_again_raise_what_a_scan_returns() -> None:
    tuner = ScanTuner()
    before = tuner.spare
    assert not tuner.record(searches=1, rescans=1, fallbacks=0)
    assert tuner.spare == 2 * before
    for _ in range(200):
        assert not tuner.record(searches=1, rescans=0, fallbacks=0)
    assert tuner.spare == ScanTuner.LEAST_SPARE


def test_codes_are_too_narrow_where_many_searches_fall_back() -> None:
    tuner = ScanTuner()
    for _ in range(3 * ScanTuner.FALLBACKS):
        assert not tuner.record(searches=2 * ScanTuner.ONE_IN, rescans=1, fallbacks=1)
    told = [tuner.record(searches=1, rescans=1, fallbacks=1) for _ in range(2 * ScanTuner.FALLBACKS)]
    assert told.count(True) in {1, 2}
