"""From rows that Milvus found to hits: scored as everywhere, equal scores by id."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from services.common.vectors import Matrix, Metric
from services.search.core.collection_index import Hit, Search
from services.search.core.scoring import Doubles, lengths_of, scores_of
from services.search.core.vector_index import Scores
from services.search.engines.milvus.space import Rows

_UNIT_ROUNDOFF = 2.0**-24
_SLACK = 16
_TINY = 2.0**-120  # what underflow in float32 can add up to
_HUGE = 1e37  # of float32: products beyond may overflow


@dataclass(slots=True)
class TopK:
    """The best hits for one query among the rows seen; `compared` counts those."""

    query: Matrix
    search: Search
    metric: Metric
    compared: int = 0
    hits: list[tuple[float, str, Hit]] = field(default_factory=list)

    def add(self, rows: Rows) -> None:
        """Let `rows`, none of them seen before, be among the hits if they are near enough."""
        if not rows.ids:
            return
        scores = scores_of(self.query, rows.vectors, self.metric)
        keys = scores if self.metric is Metric.EUCLIDEAN else -scores
        self.compared += len(scores)
        near = self._near(keys)
        found = [
            (key, rows.ids[place], Hit(rows.ids[place], score, rows.spaces[place].split(",")))
            for place, key, score in zip(near, keys[near].tolist(), scores[near].tolist(), strict=True)
        ]
        self.hits = sorted(self.hits + found, key=lambda hit: hit[:2])[: self.search.top_k]

    def _near(self, keys: Scores) -> list[int]:
        """Return the places of keys that can be among the best."""
        wanted = np.ones(len(keys), np.bool_)
        if self.search.score_limit is not None:
            limit = self.search.score_limit if self.metric is Metric.EUCLIDEAN else -self.search.score_limit
            wanted &= keys.astype(np.float64) <= limit  # the limit may lie between two float32
        if len(keys) > self.search.top_k:
            wanted &= keys <= np.partition(keys, self.search.top_k - 1)[self.search.top_k - 1]
        return list(np.flatnonzero(wanted))


def rank_rows(rows: Iterable[Rows], search: Search, queries: Matrix, metric: Metric) -> list[TopK]:
    """Return for each of `queries` the best of `rows`."""
    found = [TopK(query, search, metric) for query in queries]
    for some in rows:
        for best in found:
            best.add(some)
    return found


@dataclass(frozen=True, slots=True)
class ErrorBound:
    """How far what Milvus computes in float32 can be from the truth, for one query.

    Within it Milvus may leave out a row that is nearer than the last one it returned.
    """

    query: Matrix
    metric: Metric
    longest: float

    @property
    def overflows(self) -> bool:
        """Whether products may be beyond float32, where Milvus's order means nothing."""
        length = _length(self.query)
        if self.metric is Metric.EUCLIDEAN:
            return (length + self.longest) ** 2 > _HUGE
        return length * self.longest > _HUGE

    def covers(self, rows: Rows, asked_for: int, top_k: int) -> bool:
        """Return whether the `top_k` best of all are surely among `rows`, of which Milvus was to find `asked_for`."""
        if not top_k < len(rows.ids) == asked_for:
            return False
        keys = self._keys(rows.vectors)
        cut = np.partition(keys, top_k - 1)[top_k - 1]
        return bool(keys.max() - cut > 2 * self._error)

    def _keys(self, vectors: Matrix) -> Doubles:
        """Return what Milvus compares, computed in float64: squared distances, or products with their sign changed."""
        query = self.query.astype(np.float64)
        if self.metric is Metric.EUCLIDEAN:
            differences = vectors.astype(np.float64) - query
            squares: Doubles = np.einsum("ij,ij->i", differences, differences)
            return squares
        products: Doubles = np.einsum("ij,j->i", vectors.astype(np.float64), query)
        return -products

    @property
    def _error(self) -> float:
        """Bound of the error of one comparison: products and sums of float32, in any order, also by squares."""
        length = _length(self.query)
        scale = (length + self.longest) ** 2 if self.metric is Metric.EUCLIDEAN else length * self.longest
        return (len(self.query) + _SLACK) * 4 * _UNIT_ROUNDOFF * scale + _TINY


def normalize_queries(queries: Matrix, metric: Metric) -> Matrix:
    """Return `queries` as Milvus is asked: under cosine of length 1, so that the products are of a size."""
    if metric is not Metric.COSINE:
        return queries
    lengths = lengths_of(queries)[:, None]
    scaled: Matrix = np.divide(queries, lengths, out=np.zeros(queries.shape), where=lengths > 0).astype(np.float32)
    return scaled


def max_length(vectors: Sequence[Matrix]) -> float:
    """Return the greatest length of `vectors`, matrices of one space."""
    return max((float(lengths_of(matrix).max(initial=0.0)) for matrix in vectors), default=0.0)


def _length(vector: Matrix) -> float:
    return float(np.linalg.norm(vector.astype(np.float64)))
