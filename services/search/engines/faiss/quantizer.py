"""Codes of one byte a number, and what FAISS's score of a code proves.

A code is c = round(scale · y(x)), with y as in `projection`. With c' the query rounded likewise to whole numbers,
E the largest |y(x) - c / scale| of some vectors, C their largest |c| / scale, and e how far off the rounded query is,

    x·q ≤ c·c' / (scale · scale') + E |q| + C e              |x - q| ≥ |c - c'| / scale - E - e

Codes and queries are whole numbers up to 127, so FAISS computes both without rounding; sums beyond 2^24 are off by a
relative error that is added. "Similarity" is what grows as x gets nearer to q: x·q/|q| (cosine, |x| = 1), x·q (dot
product), -|x - q| (Euclidean).
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from services.common.vectors import Matrix, Metric
from services.search.core.scoring import Doubles, lengths_of
from services.search.core.vector_index import Mask, Scores
from services.search.engines.faiss.float_bounds import TINY, UNIT_ROUNDOFF
from services.search.engines.faiss.projection import LARGEST_CODE, Projection
from services.search.engines.faiss.query_batch import EncodedQueries, QueryBatch

DOUBLE_ERROR = 1e-6  # of t, the root of a difference, relative to a vector's length
FITTED_SHARE = 1 / 64  # of vectors that may have numbers beyond the scale
SIMILAR_SCALES = 1.25

_faiss: Any = faiss  # its stubs know the C++ signatures only


@dataclass(frozen=True, slots=True)
class Encoded:
    """Codes of some vectors, shape (n, width), how far off each is, and its length |c| / scale.

    An outlier is a vector whose numbers the scale does not fit.
    """

    codes: NDArray[np.uint8]
    errors: Doubles
    lengths: Doubles
    outliers: Mask


@dataclass(frozen=True, slots=True, eq=False)
class Quantizer:
    """Makes codes of vectors and of queries, and bounds of what FAISS makes of both."""

    projection: Projection
    metric: Metric
    scale: float

    @classmethod
    def fit(cls, projection: Projection, metric: Metric, vectors: Matrix) -> Self:
        """Return a quantizer whose scale fits `vectors`, but for the few that are far larger than the rest.

        Raises:
            RuntimeError: this build of FAISS does not multiply whole numbers exactly on this processor.
        """
        verify_whole_numbers(projection.width, metric)
        largest = np.sort(np.abs(projection.project(vectors, lengths_of(vectors))).max(axis=1))
        reach = min(1.5 * largest[-1 - int(len(largest) * FITTED_SHARE)], largest[-1])
        return cls(projection, metric, LARGEST_CODE / max(reach, TINY))

    def is_like(self, other: "Quantizer") -> bool:
        """Return whether codes of the two are about equally good."""
        similar = 1 / SIMILAR_SCALES <= self.scale / other.scale <= SIMILAR_SCALES
        return similar and self.projection is other.projection

    def empty_index(self) -> Any:
        """Return an index of FAISS that takes codes."""
        return _empty_index(self.projection.width, self.metric)

    def encode(self, vectors: Matrix) -> Encoded:
        """Return the codes of `vectors`, shape (n, dimensions)."""
        lengths = lengths_of(vectors)
        projected = self.projection.project(vectors, lengths)
        whole = np.clip(np.rint(projected * self.scale), -LARGEST_CODE, LARGEST_CODE)
        errors = _lengths(projected - whole / self.scale)
        outliers: Mask = errors * self.scale > 1 + 1.25 * np.sqrt(self.projection.width / 12)
        codes = (whole + 128).astype(np.uint8)
        return Encoded(codes, errors + DOUBLE_ERROR * lengths, _lengths(whole) / self.scale, outliers)

    def encode_queries(self, batch: QueryBatch) -> EncodedQueries:
        """Return `batch` as codes are scanned for it, which it keeps for the next segment."""
        if self not in batch.encodings:
            batch.encodings[self] = self._encode_queries(batch)
        return batch.encodings[self]

    def bounds(self, scores: Scores, queries: EncodedQueries, error: float, longest: float) -> Doubles:
        """Return upper bounds of similarity for `scores` of codes, shape (queries, n).

        `error` and `longest` are what no error and no length of a code exceeds.
        """
        relative = 2 * self.projection.width * UNIT_ROUNDOFF
        if self.metric is Metric.EUCLIDEAN:
            distances = np.sqrt(scores.astype(np.float64)) * ((1 - relative) / self.scale)
            return (queries.missed + error)[:, None] - distances
        slack = (error + relative * longest) * queries.lengths + longest * queries.missed + TINY
        bounds: Doubles = scores * (1 / (self.scale * queries.factors))[:, None] + slack[:, None]
        return bounds

    def _encode_queries(self, batch: QueryBatch) -> EncodedQueries:
        """Return whole numbers: Euclidean queries clipped to the box of all codes, no further from any of them."""
        projected = self.projection.project(batch.directions, batch.lengths)
        factors = np.full(len(batch), self.scale)
        if self.metric is not Metric.EUCLIDEAN:
            factors = LARGEST_CODE / np.maximum(np.abs(projected).max(axis=1), TINY)
        scaled = np.clip(projected * factors[:, None], -LARGEST_CODE, LARGEST_CODE)
        whole = np.rint(scaled)
        missed = _lengths(scaled - whole) / factors + DOUBLE_ERROR * batch.lengths
        return EncodedQueries(whole.astype(np.float32), factors, missed, batch.lengths)


@cache
def verify_whole_numbers(width: int, metric: Metric) -> None:
    """Let FAISS score a few codes of `width`: which of its ways to do that it takes depends on the processor.

    Raises:
        RuntimeError: a score is not exact.
    """
    codes = (np.arange(3 * width) * 37 % 255 - 127).reshape(3, width)
    query = np.arange(width) * 53 % 255 - 127
    products, distances = codes @ query, np.sum((codes - query) ** 2, axis=1)
    index = _empty_index(width, metric)
    index.add_sa_codes((codes + 128).astype(np.uint8))
    (scores,), (rows,) = index.search(query[None].astype(np.float32), 3)
    wanted = (distances if metric is Metric.EUCLIDEAN else products)[rows]
    if not np.allclose(scores, wanted, rtol=width * UNIT_ROUNDOFF, atol=0):
        raise RuntimeError(f"FAISS computes {scores} for codes of {width} whole numbers, where {wanted} is right")


def _empty_index(width: int, metric: Metric) -> Any:
    kind = _faiss.METRIC_L2 if metric is Metric.EUCLIDEAN else _faiss.METRIC_INNER_PRODUCT
    return _faiss.IndexScalarQuantizer(width, _faiss.ScalarQuantizer.QT_8bit_direct_signed, kind)


def _lengths(rows: Doubles) -> Doubles:
    lengths: Doubles = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return lengths
