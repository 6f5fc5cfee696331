from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.search.conditions import CONDITIONS, Condition
from benchmarks.search.corpus import Corpus
from benchmarks.search.sources import generated
from benchmarks.search.truth import TOP_K, Truth

Numbers = NDArray[np.int64]


@pytest.fixture
def corpus() -> Corpus:
    return generated(20_000, 8, queries=5)


def best(corpus: Corpus, query: int, rows: Numbers) -> list[int]:
    found: list[int] = rows[np.argsort(-(corpus.vectors[rows] @ corpus.queries[query]), kind="stable")][:TOP_K].tolist()
    return found


@pytest.mark.parametrize("condition", [None, *CONDITIONS], ids=["unfiltered", *(each.label for each in CONDITIONS)])
def test_the_best_items_have_recall_1_and_each_missing_one_costs_its_share(
    corpus: Corpus, condition: Condition | None
) -> None:
    truth = Truth(corpus)
    rows = np.flatnonzero(truth.masks[condition])
    for query in range(len(corpus.queries)):
        found = best(corpus, query, rows)
        assert truth.recall(query, found, condition) == 1
        assert truth.recall(query, found[1:], condition) == pytest.approx(1 - 1 / len(found))


def test_an_item_that_comes_twice_or_that_the_filter_keeps_out_counts_for_nothing(corpus: Corpus) -> None:
    truth, condition = Truth(corpus), CONDITIONS[0]
    found = best(corpus, 0, np.flatnonzero(truth.masks[condition]))
    assert truth.recall(0, [found[0]] * TOP_K, condition) == pytest.approx(1 / TOP_K)
    kept_out = best(corpus, 0, np.flatnonzero(~truth.masks[condition]))
    assert truth.recall(0, kept_out, condition) == 0


def test_any_of_equal_items_is_among_the_best() -> None:
    vectors = np.repeat(np.eye(2, 4, dtype=np.float32), [15, 15], axis=0)
    fields = {condition.field: np.full(len(vectors), "") for condition in CONDITIONS}
    truth = Truth(Corpus("equal", vectors, fields, np.eye(1, 4, dtype=np.float32)))
    assert truth.recall(0, list(range(5, 15))) == 1
    assert truth.recall(0, list(range(10, 20))) == 0.5


def test_a_condition_lets_about_its_share_pass() -> None:
    truth = Truth(generated(40_000, 4, queries=1))
    for condition in CONDITIONS:
        assert truth.share(condition) == pytest.approx(condition.share, rel=0.5)


def test_a_corpus_is_read_as_it_was_written(corpus: Corpus, tmp_path: Path) -> None:
    corpus.save(tmp_path)
    read = Corpus.load(tmp_path)
    assert read.name == corpus.name
    assert np.array_equal(read.vectors, corpus.vectors)
    assert np.array_equal(read.queries, corpus.queries)
    assert read.metadata(100, 200) == corpus.metadata(100, 200)
    assert read.metadata(19_990, 30_000) == corpus.metadata(19_990, 20_000)
