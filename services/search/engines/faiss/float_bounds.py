"""What float32 proves of the similarity of a vector to a query, which grows as the vector gets nearer.

It is x·q/|q| (cosine, |x| = 1), x·q (dot product), -|x - q| (Euclidean).
"""

import numpy as np

from services.common.vectors import Matrix, Metric
from services.search.core.scoring import Doubles
from services.search.core.vector_index import Numbers
from services.search.engines.faiss.query_batch import QueryBatch

UNIT_ROUNDOFF = 2.0**-24
TINY = 1e-30  # more than products lose where they are too small for float32
FADING = 1e-17  # more than lengths do
LARGEST = float(np.finfo(np.float32).max)


def relative_error(dimensions: int) -> float:
    """Return what a sum of products in float32, in any order, is off by, relative to the lengths.

    It is n·u / (1 - n·u) for n products, u = 2^-24 (Higham, "Accuracy and Stability of Numerical Algorithms", 2002,
    ch. 3). Twice that, and some for what scores themselves are rounded by, are allowed here.
    """
    return 2 * (dimensions + 16) * UNIT_ROUNDOFF


def similarity_bounds(vectors: Matrix, batch: QueryBatch, numbers: Numbers) -> tuple[Doubles, Doubles]:
    """Return what the similarity of vectors[i], shape (n, dimensions), to query numbers[i] is at least and at most."""
    alone = len(batch) == 1
    directions = batch.floats[0] if alone else batch.floats[numbers]
    relative = relative_error(vectors.shape[1])
    if batch.metric is Metric.EUCLIDEAN:
        away = vectors - directions
        similarities = -np.sqrt(np.einsum("ij,ij->i", away, away).astype(np.float64))
        error = FADING - relative * similarities
    else:
        similarities = np.einsum("...j,...j->...", vectors, directions).astype(np.float64)
        error = relative * (batch.lengths[0] if alone else batch.lengths[numbers])
        if batch.metric is Metric.DOT_PRODUCT:
            squares = np.einsum("ij,ij->i", vectors, vectors).astype(np.float64)
            error = error * (np.sqrt(squares) + FADING)
        error = error + TINY
    least, most = similarities - error, similarities + error
    if batch.metric is not Metric.COSINE:
        unknown = ~np.isfinite(most) | (np.abs(similarities) > LARGEST / 2)  # beyond float32 all scores are the same
        least[unknown], most[unknown] = -np.inf, np.inf
    return least, most
