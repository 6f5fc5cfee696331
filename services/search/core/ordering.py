"""From a ranking by score to the one order of hits: best first, equal scores by id."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from heapq import nsmallest

import numpy as np

from services.common.vectors import Metric
from services.search.core.vector_index import Ranking, Scores


def break_ties(ranking: Ranking, top_k: int, id_of: Callable[[int], str]) -> Ranking:
    """Return the `top_k` best of `ranking`, whose slots are rows and tie in any order, equal scores by `id_of` row."""
    runs = list(_tied(ranking.scores, top_k))
    if not runs:
        return replace(ranking, slots=ranking.slots[:top_k], scores=ranking.scores[:top_k])
    rows = ranking.slots.copy()
    for begin, end in runs:
        by_id = nsmallest(min(end, top_k) - begin, rows[begin:end].tolist(), key=id_of)
        rows[begin : begin + len(by_id)] = by_id
    return replace(ranking, slots=rows[:top_k], scores=ranking.scores[:top_k])


def apply_score_limit(ranking: Ranking, limit: float, metric: Metric) -> Ranking:
    """Return those of `ranking` that are at least as near as `limit` by the direction of `metric`."""
    scores = ranking.scores.astype(np.float64)  # the limit may lie between two float32
    near = np.count_nonzero(scores <= limit if metric is Metric.EUCLIDEAN else scores >= limit)
    return replace(ranking, slots=ranking.slots[:near], scores=ranking.scores[:near])


def _tied(scores: Scores, top_k: int) -> Iterator[tuple[int, int]]:
    """Yield the runs of equal scores, longer than one, that begin above the cut."""
    equal_next = scores[:-1] == scores[1:]
    if not equal_next.any():
        return
    edges = np.flatnonzero(np.diff(equal_next, prepend=False, append=False))
    for begin, last in edges.reshape(-1, 2).tolist():
        if begin >= top_k:
            return
        yield begin, last + 1
