"""The one way to score a vector, so that every engine ranks and ties alike.

An engine may find candidates as it likes, in float32 and in any order of summation; what it answers is scored here:
sums in float64, each row by itself, rounded to float32 once. Equal vectors therefore get equal scores wherever they
lie, and a score does not depend on its neighbours, on a batch or on an engine.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from services.common.vectors import Matrix, Metric
from services.search.core.vector_index import Numbers, Ranking, Scores

CHUNK_FLOATS = 2**20
UNIT_TOLERANCE = 1.001 * 2.0**-24  # rounding to float32 changes a length by 2^-24 of it at most
_LARGEST = float(np.finfo(np.float32).max)

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scored:
    """Slots of several queries and their scores: slots[i] has scores[i] for the query numbers[i]."""

    numbers: Numbers
    slots: Numbers
    scores: Scores

    def __add__(self, other: "Scored") -> "Scored":
        """Return both."""
        return Scored(
            np.concatenate([self.numbers, other.numbers]),
            np.concatenate([self.slots, other.slots]),
            np.concatenate([self.scores, other.scores]),
        )


def prepared(vectors: Matrix, metric: Metric) -> Matrix:
    """Return `vectors`, shape (n, dimensions), as an index holds them: under cosine scaled to length 1.

    Rows that have that length, as far as float32 can, stay as they are: what is held is prepared, bit for bit.
    """
    if metric is not Metric.COSINE:
        return vectors
    lengths = lengths_of(vectors)
    scalable = (np.abs(lengths - 1) > UNIT_TOLERANCE) & (lengths > 0)
    if not scalable.any():
        return vectors
    scaled = vectors.copy()
    scaled[scalable] = vectors[scalable] / lengths[scalable, None]
    return scaled


def lengths_of(vectors: Matrix) -> Doubles:
    """Return the Euclidean lengths of `vectors`, shape (n, dimensions)."""
    doubles = vectors.astype(np.float64)
    lengths: Doubles = np.sqrt(np.einsum("ij,ij->i", doubles, doubles))
    return lengths


def scores_of(queries: Matrix, vectors: Matrix, metric: Metric) -> Scores:
    """Return the scores of prepared `vectors`, shape (n, dimensions), for `queries`, not prepared.

    Those are one for all, shape (dimensions,), or one for each, shape (n, dimensions). Scores beyond float32 become its
    largest number.
    """
    doubles, asked = vectors.astype(np.float64), queries.astype(np.float64)
    match metric:
        case Metric.EUCLIDEAN:
            doubles -= asked
            scores = np.sqrt(_products(doubles, doubles))
        case Metric.DOT_PRODUCT:
            scores = _products(doubles, asked)
        case Metric.COSINE:
            scores = _cosines(asked, doubles)
    rounded: Scores = np.clip(scores, -_LARGEST, _LARGEST).astype(np.float32)
    return rounded


def ranked(slots: Numbers, scores: Scores, top_k: int, metric: Metric) -> Ranking:
    """Return the `top_k` best of `slots` by `scores`, best first, with all that tie with the last."""
    compared = len(slots)
    keys = scores if metric is Metric.EUCLIDEAN else -scores
    if len(keys) > top_k:
        kept = np.flatnonzero(keys <= np.partition(keys, top_k - 1)[top_k - 1])
        slots, scores, keys = slots[kept], scores[kept], keys[kept]
    order = np.argsort(keys, kind="stable")
    return Ranking(slots[order], scores[order], compared)


def rankings(queries: int, scored: Scored, top_k: int, metric: Metric) -> list[Ranking]:
    """Return for each of `queries`, by number, what `ranked` would of its slots."""
    keys = scored.scores if metric is Metric.EUCLIDEAN else -scored.scores
    order = np.lexsort((keys, scored.numbers))
    slots, scores, keys = scored.slots[order], scored.scores[order], keys[order]
    ends = np.cumsum(np.bincount(scored.numbers, minlength=queries)).tolist()
    return [_cut(slots[begin:end], scores[begin:end], keys[begin:end], top_k) for begin, end in pairwise([0, *ends])]


def _cut(slots: Numbers, scores: Scores, keys: Scores, top_k: int) -> Ranking:
    """Return the `top_k` first of what is in order, with all that tie with the last."""
    kept = len(keys)
    if kept > top_k:
        kept = int(np.searchsorted(keys, keys[top_k - 1], side="right"))
    return Ranking(slots[:kept], scores[:kept], len(keys))


def scanned(query: Matrix, slots: Numbers, gather: Callable[[Numbers], Matrix], metric: Metric) -> Scores:
    """Return the scores of `slots`, whose prepared vectors `gather` fetches, a bounded number at a time."""
    scores = np.empty(len(slots), np.float32)
    for part in chunks(len(slots), len(query)):
        scores[part] = scores_of(query, gather(slots[part]), metric)
    return scores


def _cosines(queries: Doubles, vectors: Doubles) -> Doubles:
    products = _products(vectors, queries)
    lengths = np.sqrt(_products(vectors, vectors) * _products(queries, queries))
    cosines = np.divide(products, lengths, out=np.zeros(len(products)), where=lengths > 0)
    clipped: Doubles = np.clip(cosines, -1.0, 1.0)
    return clipped


def _products(left: Doubles, right: Doubles) -> Doubles:
    """Return the inner products of rows, each summed up by itself and in one order, whatever the shapes."""
    products: Doubles = np.einsum("...j,...j->...", left, right)
    return products


def chunks(count: int, dimensions: int, floats: int = CHUNK_FLOATS) -> Iterator[slice]:
    """Yield slices of `count` vectors, as many at a time as have about `floats` numbers."""
    size = max(1, floats // dimensions)
    return (slice(begin, begin + size) for begin in range(0, count, size))
