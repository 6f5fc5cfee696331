"""From candidates with bounds to exact answers: which must be scored, and what their scores prove.

The vectors of the highest bounds are scored our way, and then every other one whose bound reaches the last of the
answers so far; the rest cannot belong to the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from services.common.vectors import Matrix, Metric
from services.search.adapters.faiss_codes import UNIT_ROUNDOFF
from services.search.adapters.faiss_segment import TINY, Probes
from services.search.adapters.faiss_segments import Segments
from services.search.core.scoring import Doubles, Scored, chunks, rankings, scanned, scores_of
from services.search.core.vector_index import Mask, Numbers, Ranking, Scores

SCORED_AT_ONCE = 32
SCORED_BY_QUERY = 64
PAIRED_FLOATS = 2**16
"""Where queries have few candidates each, all are scored together, so many that they stay in the cache."""
_SCORE_ERROR = 64 * UNIT_ROUNDOFF  # of a score, of the product of the lengths or of the square of the distance
_DOUBLE_ERROR = 2.0**-40


@dataclass(frozen=True, slots=True)
class Settling:
    """Settles which of some slots of `segments` are the `top_k` nearest to queries."""

    segments: Segments
    probes: Probes
    top_k: int

    def one(self, number: int) -> "Settling":
        """Return the same for one of the queries."""
        return replace(self, probes=self.probes.one(number))

    def ranked(self, slots: Numbers) -> list[Ranking]:
        """Return for each query the best of slots[i], shape (queries, n), all of which are compared."""
        few = slots.shape[1] <= max(self.top_k, SCORED_AT_ONCE)
        bounds = np.full(slots.shape, np.inf) if few else self.segments.bounds(self.probes, slots)
        return [replace(ranking, compared=slots.shape[1]) for ranking in self.scored(slots, bounds)]

    def scored(self, slots: Numbers, bounds: Doubles) -> list[Ranking]:
        """Return for each query the best of slots[i], given the `bounds` of their closeness, both (queries, n).

        Slots that are `NOWHERE` do not count.
        """
        there = slots >= 0
        if slots.shape[1] <= max(self.top_k, SCORED_AT_ONCE):
            return self._rankings(self._scores(slots, there))
        first = np.zeros_like(there)
        first[np.arange(len(first))[:, None], np.argpartition(bounds, -self.top_k, axis=1)[:, -self.top_k :]] = True
        scored = self._scores(slots, first & there)
        reach = self._closeness(self._last(scored))
        return self._rankings(scored + self._scores(slots, self._reaching(slots, bounds, ~first & there, reach)))

    def reach(self, answers: Sequence[Ranking]) -> Doubles:
        """Return how close the last of each of `answers` is at least, shape (queries,).

        That is minus infinity where there are fewer than `top_k`.
        """
        last = [float(each.scores[-1]) if len(each.scores) >= self.top_k else self._worst for each in answers]
        return self._closeness(np.array(last))

    def _rankings(self, scored: Scored) -> list[Ranking]:
        return rankings(len(self.probes), scored, self.top_k, self.segments.metric)

    def _reaching(self, slots: Numbers, bounds: Doubles, there: Mask, reach: Doubles) -> Mask:
        """Return which of `slots`, of those `there`, may be as close as `reach`, shape (queries,)."""
        reaching: Mask = there & (bounds >= reach[:, None])
        for number in np.flatnonzero(np.count_nonzero(reaching, axis=1) > SCORED_AT_ONCE).tolist():
            places = np.flatnonzero(reaching[number])
            closest = self.segments.bounds(self.probes.one(number), slots[number, places][None])[0]
            reaching[number, places] = closest >= reach[number]
        return reaching

    def _scores(self, slots: Numbers, wanted: Mask) -> Scored:
        """Score those of `slots` that are `wanted`."""
        numbers, places = np.nonzero(wanted)
        chosen, queries = slots[numbers, places], self.probes.queries
        if len(chosen) >= SCORED_BY_QUERY * len(queries):
            ends = np.cumsum(np.bincount(numbers, minlength=len(queries)))[:-1]
            scores = [self._scanned(query, part) for query, part in zip(queries, np.split(chosen, ends), strict=True)]
        else:
            scores = [
                scores_of(queries[numbers[part]], self.segments.vectors(chosen[part]), self.segments.metric)
                for part in chunks(len(chosen), self.segments.dimensions, PAIRED_FLOATS)
            ]
        return Scored(numbers, chosen, np.concatenate([*scores, np.empty(0, np.float32)]))

    def _scanned(self, query: Matrix, slots: Numbers) -> Scores:
        return scanned(query, slots, self.segments.vectors, self.segments.metric)

    def _last(self, scored: Scored) -> Doubles:
        """Return the score of the last of each query's `top_k`; the worst there is, where it has fewer."""
        further = np.maximum if self.segments.metric is Metric.EUCLIDEAN else np.minimum
        last = np.full(len(self.probes), -self._worst)
        further.at(last, scored.numbers, scored.scores)
        last[np.bincount(scored.numbers, minlength=len(last)) < self.top_k] = self._worst
        return last

    @property
    def _worst(self) -> float:
        return np.inf if self.segments.metric is Metric.EUCLIDEAN else -np.inf

    def _closeness(self, scores: Doubles) -> Doubles:
        """Return how close, at least, a vector is whose score for query i is scores[i] or better."""
        lengths = self.probes.lengths
        match self.segments.metric:
            case Metric.COSINE:
                return scores - _SCORE_ERROR - TINY
            case Metric.DOT_PRODUCT:
                return scores - _SCORE_ERROR * lengths * self.segments.longest - TINY
            case Metric.EUCLIDEAN:
                squares, distances = lengths**2, scores**2
                close: Doubles = (squares - distances * (1 + _SCORE_ERROR)) / 2
                return close - _DOUBLE_ERROR * (squares + distances) - TINY
