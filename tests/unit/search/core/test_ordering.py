"""Ranked rows as hits: their order, where they are cut, and what they are by column."""

import numpy as np
import pytest

from services.common.vectors import Metric
from services.search.core.collection_index import Hit
from services.search.core.hits import Hits, columns_of
from services.search.core.ordering import apply_score_limit, break_ties
from services.search.core.vector_index import Ranking


def ranking(*scores: float) -> Ranking:
    return Ranking(np.arange(len(scores)), np.array(scores, np.float32))


@pytest.mark.parametrize("top_k", [1, 2, 3, 4, 7, 8, 40])
def test_equal_scores_come_by_id_at_every_cut(top_k: int) -> None:
    scores = [0.9, 0.9, 0.5, 0.4, 0.4, 0.4, 0.1, 0.1]
    ids = ["z", "y", "a", "q", "p", "r", "c", "b"]
    expected = sorted(range(8), key=lambda row: (-scores[row], ids[row]))[:top_k]
    ordered = break_ties(ranking(*scores), top_k, ids.__getitem__)
    assert ordered.slots.tolist() == expected
    assert ordered.scores.tolist() == pytest.approx([scores[row] for row in expected])


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_any_number_of_equal_scores_is_ordered(count: int) -> None:
    ids = [f"{(row * 7) % 50:02}" for row in range(count)]
    ordered = break_ties(ranking(*[1.0] * count), 10, ids.__getitem__)
    assert [ids[row] for row in ordered.slots.tolist()] == sorted(ids)[:10]


@pytest.mark.parametrize(
    ("metric", "scores", "limit", "kept"),
    [
        (Metric.COSINE, [1.0, 0.5, 0.5, -0.25], 0.5, 3),
        (Metric.COSINE, [1.0, 0.5, 0.5, -0.25], -1.0, 4),
        (Metric.COSINE, [1.0, 0.5], 1.5, 0),
        (Metric.DOT_PRODUCT, [30, 2, -4], 2.0000001, 1),
        (Metric.EUCLIDEAN, [0, 2, 3], 2.0, 2),
        (Metric.EUCLIDEAN, [0, 2, 3], 1.9999999999, 1),
        (Metric.EUCLIDEAN, [0.5], -1.0, 0),
    ],
)
def test_a_limit_cuts_by_the_direction_of_the_metric(
    metric: Metric, scores: list[float], limit: float, kept: int
) -> None:
    cut = apply_score_limit(ranking(*scores), limit, metric)
    assert cut.slots.tolist() == list(range(kept))
    assert cut.scores.tolist() == scores[:kept]


def test_a_limit_between_two_float32_is_not_rounded_to_one() -> None:
    third = float(np.float32(1 / 3))
    assert len(apply_score_limit(ranking(third), third, Metric.COSINE).slots) == 1
    assert len(apply_score_limit(ranking(third), np.nextafter(third, 1), Metric.COSINE).slots) == 0


def test_hits_by_column_are_hits() -> None:
    listed = [Hit("a", 1.0, ["x"]), Hit("b", 0.5, ["x", "y"]), Hit("c", 0.25, [])]
    hits = Hits.of(listed)
    assert list(hits) == listed
    assert hits == listed
    assert [hits[place] for place in (0, -1)] == [listed[0], listed[-1]]
    assert hits[1:] == listed[1:]
    assert (hits.ids, hits.scores.tolist(), hits.spaces) == (["a", "b", "c"], [1.0, 0.5, 0.25], [["x"], ["x", "y"], []])
    assert columns_of(hits) is hits
    assert columns_of(listed) == listed
    assert columns_of([]) == []
