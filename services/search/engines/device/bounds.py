"""Bounds of scores from products in half precision: the one proof that exact search on a device rests on.

With u for a row on the device and w for a query of length 1, û and ŵ for their halves, and p for the product that the
device sums up:

    |u·w - p| <= |u - û||w| + |û||w - ŵ| + n·2^-22·|û||ŵ| <= r + (L + r)·s + n·2^-22·(L + r)(1 + s)

L is the longest |u|; r is the largest |u - û| and s is |w - ŵ|, both measured when halves are made, so that numbers out
of the range of halves are covered too. The last term is for sums of n exact products in float32 in any order (Higham,
"Accuracy and Stability of Numerical Algorithms", 2002, ch. 3), at four times the unit roundoff because tensor cores cut
off what others round (Fasi, Higham, Mikaitis & Pranesh, "Numerical behavior of NVIDIA tensor cores", 2021). `SLACK` is
for the few roundings besides, among them that of a score to float32.

From that bound a device makes a key for each vector, higher is nearer. For a vector v and a query q a key is at least

    v·q / |v||q| under cosine,    v·q / |q| as a dot product,    2·v·q - |v|² as a Euclidean distance,

which is also how a score reads as a key: where a vector's key is below that of a score, its true score is worse.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.common.vectors import Matrix, Metric
from services.search.core.scoring import Doubles, lengths_of

SLACK = 2.0**-20
_ACCUMULATION = 2.0**-22
_TINY = 2.0**-100  # far above what float32 loses where numbers fade into 0
_LEAST = 2.0**-149  # the smallest float32 above 0: what a score may be off by where it fades into 0

Halves = NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Rounded:
    """Rows as halves, and how far each is from what it stands for."""

    halves: Halves
    errors: Doubles

    @classmethod
    def of(cls, rows: Doubles) -> "Rounded":
        """Round `rows`, shape (n, dimensions), of numbers within the range of halves."""
        halves = rows.astype(np.float16)
        return cls(halves, np.linalg.norm(rows - halves, axis=1))


def directions(vectors: Matrix) -> tuple[Doubles, Doubles]:
    """Return `vectors` scaled to length 1, rows of zeros as they are, and their lengths."""
    lengths = lengths_of(vectors)
    return scaled(vectors, lengths[:, None]), lengths


def scaled(vectors: Matrix | Doubles, lengths: Doubles) -> Doubles:
    """Return `vectors` divided by `lengths`; zeros where those are 0."""
    return np.divide(vectors, lengths, out=np.zeros(vectors.shape), where=lengths > 0)


def product_errors(dimensions: int, query_errors: Doubles, row_error: float, longest: float = 1.0) -> Doubles:
    """Return for each query how far products may be off, of rows no longer than `longest`; see the module's bound."""
    rows, queries = longest + row_error, 1 + query_errors
    errors: Doubles = row_error + rows * query_errors + dimensions * _ACCUMULATION * rows * queries + SLACK
    return errors


def score_key(score: float, length: float, metric: Metric) -> float:
    """Return the key below which no vector is as near as `score`, to a query of `length`."""
    match metric:
        case Metric.COSINE:
            return score
        case Metric.DOT_PRODUCT:
            return (score - _LEAST) / length - _TINY if length else -np.inf
        case Metric.EUCLIDEAN:
            return length**2 * (1 - SLACK**2) - (score * (1 + SLACK)) ** 2 - _TINY
