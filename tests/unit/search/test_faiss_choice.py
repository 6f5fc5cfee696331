"""Codes become narrow where that suits the vectors and the queries, and wide again where it does not."""

import threading
import time
from typing import Any

import numpy as np
import pytest

from services.common.index_config import VectorStorage
from services.common.vectors import Matrix, Metric
from services.search.adapters import faiss
from services.search.adapters.faiss import FaissIndex
from services.search.adapters.faiss_axes import Axes, principal_axes
from services.search.adapters.faiss_choice import CANDIDATE_COST, RARE, TRIED_QUERIES, Lookup, Misses, Trial, chosen
from services.search.adapters.faiss_codes import Coding
from services.search.core.scoring import lengths_of, scores_of
from services.search.core.vector_index import Selection
from tests.contract.vector_index import assert_exact
from tests.unit.search.directions import DIMENSIONS, along_few_directions

ROWS = 10_000
EVERYTHING = Selection.of(np.arange(ROWS), ROWS)
TIMEOUT_SECONDS = 60.0
MISS = Lookup(np.zeros(2, np.float32), Selection(1, 1), 0.5, 10)


def filled(vectors: Matrix, metric: Metric = Metric.COSINE) -> FaissIndex:
    index = FaissIndex(vectors.shape[1], metric)
    index.write(np.arange(len(vectors)), vectors)
    index.settle()
    return index


def bytes_a_vector(index: FaissIndex) -> float:
    return index.memory_bytes / ROWS - 4 * DIMENSIONS


@pytest.mark.parametrize("metric", Metric)
def test_vectors_along_few_directions_take_narrow_codes(metric: Metric) -> None:
    random = np.random.default_rng(2)
    index = filled(along_few_directions(random, ROWS, 0.02), metric)
    assert bytes_a_vector(index) < DIMENSIONS / 2
    assert_exact(index, metric, along_few_directions(random, 5, 0.02), 10, EVERYTHING)


@pytest.mark.parametrize("metric", Metric)
def test_vectors_along_all_directions_keep_wide_codes(metric: Metric) -> None:
    random = np.random.default_rng(3)
    index = filled(random.standard_normal((ROWS, DIMENSIONS)).astype(np.float32), metric)
    assert bytes_a_vector(index) >= DIMENSIONS
    assert_exact(index, metric, random.standard_normal((5, DIMENSIONS)).astype(np.float32), 10, EVERYTHING)


def test_codes_become_wide_again_where_queries_lie_along_other_directions() -> None:
    random = np.random.default_rng(4)
    index = filled(along_few_directions(random, ROWS, 0.1))
    assert bytes_a_vector(index) < DIMENSIONS / 2
    queries = random.standard_normal((8, DIMENSIONS)).astype(np.float32)
    give_up = time.monotonic() + TIMEOUT_SECONDS
    while bytes_a_vector(index) < DIMENSIONS:
        assert time.monotonic() < give_up
        assert_exact(index, Metric.COSINE, queries, 10, EVERYTHING)
    assert_exact(index, Metric.COSINE, queries, 10, EVERYTHING)


def test_what_missed_is_tried_with_its_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(12)
    index, left = filled(along_few_directions(random, ROWS, 0.1)), Selection.of(np.arange(ROWS // 4, ROWS), ROWS)
    trials: list[Trial] = []

    def watched(trial: Trial, *values: Any) -> Any:
        trials.append(trial)
        return chosen(trial, *values)

    monkeypatch.setattr(faiss, "chosen", watched)
    for query in random.standard_normal((TRIED_QUERIES, 1, DIMENSIONS)).astype(np.float32):
        index.search(query, 10, left)
    index.settle()
    assert [lookup.selection for lookup in trials[0].lookups] == [left] * TRIED_QUERIES
    slots = np.arange(ROWS // 4, ROWS)
    for lookup in trials[0].lookups:
        scores = scores_of(lookup.query, index.vectors(slots), Metric.COSINE)
        assert lookup.reach <= np.partition(scores, -10)[-10]


def test_what_a_filter_leaves_out_costs_nothing() -> None:
    vectors = along_few_directions(np.random.default_rng(13), 200, 0.1)
    slots, lengths, coding = np.arange(200), lengths_of(vectors), Coding(DIMENSIONS, Metric.COSINE, VectorStorage.INT8)
    directions = vectors / lengths[:, None]

    def cost(selection: Selection) -> float:
        lookups = [Lookup(query, selection, -np.inf, 1000) for query in vectors[:5]]
        return Trial(vectors, slots, 200, lookups, directions[:5], np.ones(5)).cost(coding)

    half = Selection.of(np.arange(100), 200)
    assert cost(Selection.of(slots, 200)) - cost(half) == pytest.approx(CANDIDATE_COST * 4 * DIMENSIONS * 100)


def test_a_choice_lasts_until_much_more_is_written() -> None:
    random = np.random.default_rng(5)
    index = filled(along_few_directions(random, ROWS, 0.02))
    index.write(np.arange(500), random.standard_normal((500, DIMENSIONS)).astype(np.float32))
    index.settle()
    assert bytes_a_vector(index) < DIMENSIONS / 2
    assert_exact(index, Metric.COSINE, random.standard_normal((5, DIMENSIONS)).astype(np.float32), 10, EVERYTHING)


def test_other_storages_are_not_narrowed() -> None:
    vectors = along_few_directions(np.random.default_rng(6), ROWS, 0.02)
    index = filled(vectors)
    index.store_as(VectorStorage.FLOAT16)
    assert bytes_a_vector(index) >= 2 * DIMENSIONS
    index.store_as(VectorStorage.FLOAT32)
    assert bytes_a_vector(index) == 0
    index.store_as(VectorStorage.INT8)
    index.settle()
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


def test_storage_that_changes_while_a_coding_is_chosen_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(*values: Any) -> Any:
        begun.set()
        assert go_on.wait(TIMEOUT_SECONDS)
        return chosen(*values)

    monkeypatch.setattr(faiss, "chosen", slow)
    index = FaissIndex(DIMENSIONS, Metric.COSINE)
    index.write(np.arange(ROWS), along_few_directions(np.random.default_rng(7), ROWS, 0.02))
    assert begun.wait(TIMEOUT_SECONDS)
    index.store_as(VectorStorage.FLOAT16)
    go_on.set()
    index.settle()
    assert bytes_a_vector(index) >= 2 * DIMENSIONS


def test_what_goes_wrong_in_choosing_stops_neither_writes_nor_later_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*values: Any) -> Any:
        raise np.linalg.LinAlgError("did not converge")

    vectors = along_few_directions(np.random.default_rng(8), 4 * ROWS, 0.02)
    monkeypatch.setattr(faiss, "chosen", failing)
    index = filled(vectors[:ROWS])
    assert bytes_a_vector(index) >= DIMENSIONS
    monkeypatch.setattr(faiss, "chosen", chosen)
    index.write(np.arange(ROWS, 4 * ROWS), vectors[ROWS:])
    index.settle()
    assert index.memory_bytes / len(vectors) - 4 * DIMENSIONS < DIMENSIONS / 2


def test_a_stray_query_does_not_decide() -> None:
    random = np.random.default_rng(9)
    vectors = along_few_directions(random, 4 * ROWS, 0.02)
    index = filled(vectors[:ROWS])
    index.search(random.standard_normal((1, DIMENSIONS)).astype(np.float32), 10, EVERYTHING)
    index.write(np.arange(ROWS, 4 * ROWS), vectors[ROWS:])
    index.settle()
    assert index.memory_bytes / len(vectors) - 4 * DIMENSIONS < DIMENSIONS / 2


def test_one_vector_longer_than_all_leaves_batches_their_codes() -> None:
    random = np.random.default_rng(10)
    vectors = random.standard_normal((4000, DIMENSIONS)).astype(np.float32)
    vectors[17] *= np.float32(1e30)
    index = FaissIndex(DIMENSIONS, Metric.EUCLIDEAN)
    index.write(np.arange(4000), vectors)
    found = index.search(random.standard_normal((200, DIMENSIONS)).astype(np.float32), 10, Selection(4000, 4000))
    assert max(ranking.compared for ranking in found) < 1000


def test_an_empty_batch_finds_nothing() -> None:
    assert not filled(along_few_directions(np.random.default_rng(11), 100, 0.1)).search(
        np.empty((0, DIMENSIONS), np.float32), 10, Selection(100, 100)
    )


def test_misses_that_are_many_tell() -> None:
    misses = Misses()
    assert [misses.add(MISS) for _ in range(TRIED_QUERIES)] == [False] * (TRIED_QUERIES - 1) + [True]
    assert len(misses.taken().missed) == TRIED_QUERIES
    assert not misses.taken().missed


@pytest.mark.parametrize(("hits", "others"), [(0, 0), (12, 12), (24, 24), (100, 24)])
def test_of_other_queries_as_many_are_tried_as_there_were(hits: int, others: int) -> None:
    misses = Misses()
    misses.searched(TRIED_QUERIES + hits)
    for _ in range(TRIED_QUERIES):
        misses.add(MISS)
    assert misses.taken().others == others


def test_misses_that_are_rare_are_forgotten() -> None:
    misses = Misses()
    for _ in range(3 * TRIED_QUERIES):
        misses.searched(2 * RARE)
        assert not misses.add(MISS)


def test_what_does_not_help_is_tried_ever_more_seldom() -> None:
    misses = Misses()
    for needed in (TRIED_QUERIES, 2 * TRIED_QUERIES, 4 * TRIED_QUERIES):
        assert [misses.add(MISS) for _ in range(needed)] == [False] * (needed - 1) + [True]
        misses.taken()
        misses.tried(changed=False)
    misses.tried(changed=True)
    assert [misses.add(MISS) for _ in range(TRIED_QUERIES)][-1]
