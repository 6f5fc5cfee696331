"""The one way to score a vector, so that every engine ranks and ties alike.

An engine may find candidates as it likes, in float32 and in any order of summation; what it answers is scored here:
sums in float64, each row by itself, rounded to float32 once. Equal vectors therefore get equal scores wherever they
lie, and a score does not depend on its neighbours, on a batch or on an engine.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from services.common.vectors import Matrix, Metric
from services.search.index import Numbers, Ranking, Scores

CHUNK_FLOATS = 2**20
UNIT_TOLERANCE = 1.001 * 2.0**-24  # rounding to float32 changes a length by 2^-24 of it at most
_LARGEST = float(np.finfo(np.float32).max)

Doubles = NDArray[np.float64]


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


def scores_of(query: Matrix, vectors: Matrix, metric: Metric) -> Scores:
    """Return the scores of prepared `vectors`, shape (n, dimensions), for `query`, shape (dimensions,), not prepared.

    Numbers beyond float32 become its largest.
    """
    doubles = vectors.astype(np.float64)
    match metric:
        case Metric.EUCLIDEAN:
            doubles -= query
            scores = np.sqrt(np.einsum("ij,ij->i", doubles, doubles))
        case Metric.DOT_PRODUCT:
            scores = np.einsum("ij,j->i", doubles, query.astype(np.float64))
        case Metric.COSINE:
            scores = _cosines(query.astype(np.float64), doubles)
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


def scanned(query: Matrix, slots: Numbers, gather: Callable[[Numbers], Matrix], metric: Metric) -> Scores:
    """Return the scores of `slots`, whose prepared vectors `gather` fetches, a bounded number at a time."""
    scores = np.empty(len(slots), np.float32)
    for part in _chunks(len(slots), len(query)):
        scores[part] = scores_of(query, gather(slots[part]), metric)
    return scores


def _cosines(query: Doubles, vectors: Doubles) -> Doubles:
    products = np.einsum("ij,j->i", vectors, query)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors) * (query @ query))
    cosines = np.divide(products, lengths, out=np.zeros(len(products)), where=lengths > 0)
    clipped: Doubles = np.clip(cosines, -1.0, 1.0)
    return clipped


def _chunks(count: int, dimensions: int) -> Iterator[slice]:
    size = max(1, CHUNK_FLOATS // dimensions)
    return (slice(begin, begin + size) for begin in range(0, count, size))
