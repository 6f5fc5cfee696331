"""From candidates with bounds to exact answers: what float32 cannot tell apart is scored in float64."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from services.common.vectors import Matrix
from services.search.core.scoring import Doubles, Scored, chunks, ranked, rankings, scores_of
from services.search.core.vector_index import Mask, Numbers, Ranking
from services.search.engines.faiss.float_bounds import similarity_bounds
from services.search.engines.faiss.query_batch import QueryBatch

FIRST = 6  # so many more than top_k are compared first
FLOATS, PAIRED_FLOATS = 2**18, 2**16  # compared at a time, for one query and for several, to stay in the cache


@dataclass(frozen=True, slots=True)
class Reranker:
    """Ranks candidates for `batch` by their vectors, which `gather` fetches."""

    batch: QueryBatch
    top_k: int
    gather: Callable[[Numbers], Matrix]

    @np.errstate(over="ignore", invalid="ignore")  # what leaves float32 has no bounds
    def rank(self, slots: Numbers, bounds: Doubles) -> tuple[list[Ranking], Doubles]:
        """Return for each query the best of `slots`, and a similarity that all of the best have at least.

        `slots` and `bounds` have shape (queries, n): no slot has a similarity above its bound, and none is where that
        is minus infinity. So is the similarity of a query with fewer slots than `top_k`.
        """
        least, most = np.full(bounds.shape, -np.inf), bounds.copy()
        there = bounds > -np.inf
        first = there & (bounds >= _highest(bounds, self.top_k + FIRST))
        self._compare(slots, first, least, most)
        more = there & (bounds >= _highest(least, self.top_k)) & ~first
        self._compare(slots, more, least, most)
        reach = _highest(least, self.top_k)
        answers = self._score(slots, there & (most >= reach))
        compared = np.count_nonzero(first | more, axis=1).tolist()
        return [replace(answer, compared=count) for answer, count in zip(answers, compared, strict=True)], reach[:, 0]

    def _compare(self, slots: Numbers, chosen: Mask, least: Doubles, most: Doubles) -> None:
        """Tell what the similarities of those `chosen` are at least and at most, by float32."""
        numbers, places = np.nonzero(chosen)
        found = slots[numbers, places]
        for part in chunks(len(found), self.batch.queries.shape[1], PAIRED_FLOATS if len(self.batch) > 1 else FLOATS):
            at = numbers[part], places[part]
            least[at], most[at] = similarity_bounds(self.gather(found[part]), self.batch, numbers[part])

    def _score(self, slots: Numbers, chosen: Mask) -> list[Ranking]:
        """Return the best of those `chosen` by their scores."""
        numbers, places = np.nonzero(chosen)
        found, queries, metric = slots[numbers, places], self.batch.queries, self.batch.metric
        scores = np.empty(len(found), np.float32)
        for part in chunks(len(found), queries.shape[1], PAIRED_FLOATS):
            asked = queries[numbers[part]] if len(queries) > 1 else queries[0]
            scores[part] = scores_of(asked, self.gather(found[part]), metric)
        if len(queries) == 1:
            return [ranked(found, scores, self.top_k, metric)]
        return rankings(len(queries), Scored(numbers, found, scores), self.top_k, metric)


def _highest(values: Doubles, number: int) -> Doubles:
    """Return the `number`th highest of each row, shape (rows, 1); minus infinity where there are fewer."""
    if number > values.shape[1]:
        return np.full((len(values), 1), -np.inf)
    return np.partition(values, -number, axis=1)[:, -number, None]
