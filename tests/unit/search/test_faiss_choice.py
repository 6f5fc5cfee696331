"""Codes become narrow where that suits the vectors and the queries, and wide again where it does not."""

import time

import numpy as np
import pytest

from services.common.index_config import VectorStorage
from services.common.vectors import Matrix, Metric
from services.search.adapters.faiss import FaissIndex
from services.search.adapters.faiss_axes import Axes, principal_axes
from services.search.adapters.faiss_choice import RARE, TRIED_QUERIES, Misses
from services.search.index import Selection
from services.search.scoring import lengths_of, ranked, scores_of

ROWS, DIMENSIONS, DIRECTIONS = 10_000, 256, 24
EVERYTHING = Selection.of(np.arange(ROWS), ROWS)
PATIENCE_SECONDS = 60.0


def along_few_directions(random: np.random.Generator, count: int, noise: float) -> Matrix:
    axes = np.random.default_rng(1).standard_normal((DIRECTIONS, DIMENSIONS))
    vectors = random.standard_normal((count, DIRECTIONS)) @ axes / 5 + noise * random.standard_normal(
        (count, DIMENSIONS)
    )
    return vectors.astype(np.float32)


def filled(vectors: Matrix, metric: Metric = Metric.COSINE) -> FaissIndex:
    index = FaissIndex(vectors.shape[1], metric)
    index.write(np.arange(len(vectors)), vectors)
    return index


def bytes_a_vector(index: FaissIndex) -> float:
    return index.memory_bytes / ROWS - 4 * DIMENSIONS


def assert_exact(index: FaissIndex, metric: Metric, queries: Matrix) -> None:
    for query, found in zip(queries, index.search(queries, 10, EVERYTHING), strict=True):
        slots = np.arange(ROWS)
        wanted = ranked(slots, scores_of(query, index.vectors(slots), metric), 10, metric)
        assert dict(zip(found.slots.tolist(), found.scores.tolist(), strict=True)) == dict(
            zip(wanted.slots.tolist(), wanted.scores.tolist(), strict=True)
        )


@pytest.mark.parametrize("metric", Metric)
def test_vectors_along_few_directions_take_narrow_codes(metric: Metric) -> None:
    random = np.random.default_rng(2)
    index = filled(along_few_directions(random, ROWS, 0.02), metric)
    assert bytes_a_vector(index) < DIMENSIONS / 2
    assert_exact(index, metric, along_few_directions(random, 5, 0.02))


@pytest.mark.parametrize("metric", Metric)
def test_vectors_along_all_directions_keep_wide_codes(metric: Metric) -> None:
    random = np.random.default_rng(3)
    index = filled(random.standard_normal((ROWS, DIMENSIONS)).astype(np.float32), metric)
    assert bytes_a_vector(index) >= DIMENSIONS
    assert_exact(index, metric, random.standard_normal((5, DIMENSIONS)).astype(np.float32))


def test_codes_become_wide_again_where_queries_lie_along_other_directions() -> None:
    random = np.random.default_rng(4)
    index = filled(along_few_directions(random, ROWS, 0.1))
    assert bytes_a_vector(index) < DIMENSIONS / 2
    queries = random.standard_normal((8, DIMENSIONS)).astype(np.float32)
    give_up = time.monotonic() + PATIENCE_SECONDS
    while bytes_a_vector(index) < DIMENSIONS:
        assert time.monotonic() < give_up
        assert_exact(index, Metric.COSINE, queries)
    assert_exact(index, Metric.COSINE, queries)


def test_a_choice_lasts_until_much_more_is_written() -> None:
    random = np.random.default_rng(5)
    index = filled(along_few_directions(random, ROWS, 0.02))
    index.write(np.arange(500), random.standard_normal((500, DIMENSIONS)).astype(np.float32))
    assert bytes_a_vector(index) < DIMENSIONS / 2
    assert_exact(index, Metric.COSINE, random.standard_normal((5, DIMENSIONS)).astype(np.float32))


def test_other_storages_are_not_narrowed() -> None:
    vectors = along_few_directions(np.random.default_rng(6), ROWS, 0.02)
    index = filled(vectors)
    index.store_as(VectorStorage.FLOAT16)
    assert bytes_a_vector(index) >= 2 * DIMENSIONS
    index.store_as(VectorStorage.FLOAT32)
    assert bytes_a_vector(index) == 0
    index.store_as(VectorStorage.INT8)
    assert 0 < bytes_a_vector(index) < DIMENSIONS / 2


@pytest.mark.parametrize("count", [1, 40, 200])
def test_no_inner_product_of_narrowed_vectors_is_too_small(count: int) -> None:
    random = np.random.default_rng(count)
    vectors = along_few_directions(random, 300, 0.3)
    axes, lengths = Axes(principal_axes(vectors)[:count]), lengths_of(vectors)
    narrow = axes.narrowed(vectors, lengths).astype(np.float64)
    true, longest = vectors.astype(np.float64) @ vectors.T.astype(np.float64), np.outer(lengths, lengths)
    assert narrow.shape == (300, axes.width)
    assert (narrow @ narrow.T >= true - axes.loss * longest).all()
    assert (np.linalg.norm(narrow, axis=1) <= lengths * (1 + axes.loss)).all()


def test_misses_count_where_they_are_many() -> None:
    misses, query = Misses(), np.zeros(2, np.float32)
    assert [misses.add(query) for _ in range(TRIED_QUERIES + 1)] == [False] * (TRIED_QUERIES - 1) + [True, False]


def test_misses_that_are_rare_do_not_add_up() -> None:
    misses, query = Misses(), np.zeros(2, np.float32)
    for _ in range(3 * TRIED_QUERIES):
        misses.searched(2 * RARE)
        assert not misses.add(query)


def test_what_does_not_help_is_tried_ever_more_seldom() -> None:
    misses, query = Misses(), np.zeros(2, np.float32)
    for needed in (TRIED_QUERIES, 2 * TRIED_QUERIES, 4 * TRIED_QUERIES):
        assert [misses.add(query) for _ in range(needed)] == [False] * (needed - 1) + [True]
        misses.recovered(changed=False)
    misses.recovered(changed=True)
    assert [misses.add(query) for _ in range(TRIED_QUERIES)][-1]
