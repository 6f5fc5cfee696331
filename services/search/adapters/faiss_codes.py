"""Vectors coded in fewer bytes, so that a scan of the codes bounds from above how close each vector is to a query.

Closeness is the inner product x·q, under Euclidean distance x·q - |x|²/2: it grows as x gets nearer to q. A code holds
c, the vector turned, scaled and rounded, and behind it whole numbers that tell how far off it can be:

    x·q = (c / scale)·(Rq) + r·(Rq) ≤ (c / scale)·(Rq) + |r| |q|      where r = Rx - c / scale and R is orthogonal

by Cauchy and Schwarz. |r| is rounded up and kept in two digits of base 128, |x|²/2 rounded down in three. A query
carries the weights of these digits, so what FAISS's scan makes of a code is the bound of its vector, and whatever lies
below the closeness of the last answer is left out for certain. R mixes all dimensions, so that one larger than the
others does not make the scale coarse for all.

Under cosine, where no vector is longer than 1, the query may be rounded too, to whole numbers q'/a that miss Rq by e:

    x·q ≤ (c / scale)·(q' / a) + |r| (|q| + |e|) + |e|

Products of whole numbers are what FAISS computes fastest by far. |r| is then counted out over many digits of equal
weight, for the weights are whole numbers too, up to 127.

What float32 adds is inside |r|: a sum of n products, in any order, is off by at most n·u / (1 - n·u) times the sum of
the absolute products, u = 2^-24 (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, ch. 3).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from services.common.index_config import VectorStorage
from services.common.vectors import Matrix, Metric
from services.search.adapters.faiss_axes import Axes, Float
from services.search.adapters.faiss_scan import scans_floats, scans_whole
from services.search.core.scoring import Doubles
from services.search.core.vector_index import Mask, Scores

Codes = NDArray[np.uint8]

UNIT_ROUNDOFF = 2.0**-24
ROUNDINGS = 32  # besides those of a sum: turning, scaling, the weights of the digits, the last one to float32
READ_TOGETHER = (16, 8)  # numbers of a code, by FAISS
WHOLE_TOGETHER = 32  # and where both sides are whole
WHOLE_EXPANSION_AT_MOST, NARROW_EXPANSION_AT_MOST = 1.15, 1.5
LONGEST = 2.0**30  # vectors up to this length are coded, and no product of two of them leaves float32
_BASE = 128
_MOST_DIGIT = _BASE - 1
_COUNTERS_AT_LEAST, _DIMENSIONS_A_COUNTER = 16, 16  # so many that their weight, 5 times these dimensions, is below 127
_LONGEST_UNIT = 1 + 1e-6  # of vectors scaled to length 1
_NORM_LOSS = 1e-3  # far above what summing in float32 takes off the length of a rounding error
_SMALLEST = 1e-12
_USUAL_SHARE = 1 / 32
_LEEWAY = 1.5
_MOST = 2.0**40  # more than there are digits for
_SEED = 6


@dataclass(frozen=True, slots=True)
class _Kind:
    """A way to code numbers: those usual at their largest are scaled to `full`, none may exceed `most`.

    A vector is coded well enough while its rounding error is shorter than `loose` times the root of the dimensions.
    """

    quantizer: int
    item_bytes: int
    full: float
    most: float
    loose: float


_KINDS = {
    VectorStorage.INT8: _Kind(faiss.ScalarQuantizer.QT_8bit_direct_signed, 1, 127.0, 127.0, 5.0),
    VectorStorage.FLOAT16: _Kind(faiss.ScalarQuantizer.QT_fp16, 2, 1024.0, 60_000.0, 2.0),
}


@dataclass(frozen=True, slots=True)
class Turned:
    """Queries turned as coded vectors are, whatever the scale of the codes, as wide as codes: shape (n, width).

    Where both sides are whole, `numbers` are the queries times `factors`, shape (n,), rounded, with the weights of the
    digits; `missed` is how far off that is.
    """

    numbers: Matrix
    factors: Doubles
    missed: Doubles


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries as codes of one scale are scanned for them. A score s of the scan says: no closer than s·unit + offset.

    `numbers` has shape (n, width), `units` and `offsets` (n,).
    """

    numbers: Matrix
    units: Doubles
    offsets: Doubles

    def bounds(self, scores: Scores) -> Doubles:
        """Return what bounds `scores`, shape (n, m), are."""
        return scores * self.units[:, None] + self.offsets[:, None]

    def score(self, number: int, bound: float) -> float:
        """Return a score that all those exceed whose bounds for queries[number] are at least `bound`."""
        score = np.float32((bound - self.offsets[number]) / self.units[number])
        return float(np.nextafter(score, np.float32(-np.inf)))


@dataclass(frozen=True, slots=True)
class Coded:
    """Codes of some vectors, row by row; where `loose`, a code tells nothing of its vector."""

    codes: Codes
    loose: Mask


class Coding:
    """How the vectors of an index are coded. Codes of one scale are scanned together; the caller keeps the scales.

    With `axes`, vectors are narrowed before they are turned: their inner products may then come out too large, so that
    bounds stay bounds.
    """

    def __init__(self, dimensions: int, metric: Metric, storage: VectorStorage, axes: Axes | None = None) -> None:
        self._kind = _KINDS[storage]
        self.axes = axes
        self._loss = axes.loss if axes else 0.0
        self._dimensions = axes.width if axes else dimensions
        self._turned_dimensions = self._dimensions + self._dimensions % 2
        self._signs = _signs(self._dimensions) if storage is VectorStorage.INT8 else None
        square_digits = 3 if metric is Metric.EUCLIDEAN else 0
        expansion = NARROW_EXPANSION_AT_MOST if axes else WHOLE_EXPANSION_AT_MOST
        whole = _whole_width(self._turned_dimensions, expansion) if metric is Metric.COSINE else None
        self._whole = storage is VectorStorage.INT8 and whole is not None and scans_whole(whole, self._kind.quantizer)
        counters = (whole or 0) - self._turned_dimensions if self._whole else 2
        self._error_digits = slice(self._turned_dimensions, self._turned_dimensions + counters)
        self._square_digits = slice(self._error_digits.stop, self._error_digits.stop + square_digits)
        self._width = whole if whole and self._whole else _width(self._square_digits.stop, self._kind)
        self._float_error = 2 * (self._width + ROUNDINGS) * UNIT_ROUNDOFF + self._loss
        self.expansion = self._width / dimensions
        self.quantizer: Any = faiss.ScalarQuantizer(self._width, self._kind.quantizer)

    @property
    def code_bytes(self) -> int:
        """Bytes of one code."""
        return self._width * self._kind.item_bytes

    def scale_for(self, vectors: Matrix, lengths: Doubles) -> float:
        """Return a scale that suits `vectors`: their largest numbers fit, those of few that exceed the rest do not."""
        largest = np.abs(self._turned(vectors, lengths)).max(axis=1)
        usual = -1 - int(len(largest) * _USUAL_SHARE)
        reach = min(float(largest.max()), _LEEWAY * float(np.partition(largest, usual)[usual]))
        return self._kind.full / max(reach, _SMALLEST)

    def coded(self, vectors: Matrix, lengths: Doubles, scale: float) -> Coded:
        """Return the codes of `vectors`, shape (n, dimensions), given their lengths, at most `LONGEST`."""
        exact = self._turned(vectors, lengths) * np.float32(scale)
        numbers = np.zeros((len(vectors), self._width), np.float32)
        rounded = numbers[:, : self._turned_dimensions]
        np.clip(exact, -self._kind.most, self._kind.most, out=rounded)
        rounded[:] = np.rint(rounded) if self._kind.item_bytes == 1 else rounded.astype(np.float16)
        errors, squares = self._errors(exact - rounded, lengths, scale), lengths**2 / 2 * (1 - self._float_error)
        counts = np.ceil(np.minimum(errors / self._error_unit(scale), _MOST))
        split = _counted if self._whole else _digits
        numbers[:, self._error_digits] = split(counts, self._error_digits)
        numbers[:, self._square_digits] = _digits(np.floor(squares / self._square_unit(scale)), self._square_digits)
        loose: Mask = np.any(numbers[:, self._turned_dimensions :] >= _BASE, axis=1)
        numbers[loose] = 0
        return Coded(self._packed(numbers), loose)

    def turned_queries(self, queries: Doubles, lengths: Doubles) -> Turned:
        """Return `queries`, shape (n, dimensions), of `lengths`, as scans take them.

        One longer than `LONGEST` becomes something else, which is of no use.
        """
        turned = np.clip(self._turned(queries, lengths), -LONGEST, LONGEST).astype(np.float32)
        numbers = np.zeros((len(queries), self._width), np.float32)
        if self._whole:
            return self._rounded(turned.astype(np.float64), lengths, numbers)
        numbers[:, : self._turned_dimensions] = turned
        return Turned(numbers, np.ones(len(queries)), np.zeros(len(queries)))

    def asked(self, turned: Turned, lengths: Doubles, scale: float) -> Asked:
        """Return how codes of `scale` are scanned for queries of `lengths`."""
        if self._whole:
            longest = _LONGEST_UNIT * (1 + self._loss)
            return Asked(turned.numbers, 1 / (scale * turned.factors), turned.missed * longest)
        numbers = turned.numbers * np.float32(1 / scale)
        error_units = lengths[:, None] * (1 + self._loss) * self._error_unit(scale)
        numbers[:, self._error_digits] = _powers(self._error_digits) * error_units
        numbers[:, self._square_digits] = _powers(self._square_digits) * -self._square_unit(scale)
        return Asked(numbers, turned.factors, turned.missed)

    def _rounded(self, exact: Doubles, lengths: Doubles, numbers: Matrix) -> Turned:
        """Fill `numbers` with `exact` as whole numbers; the weights of the digits suit every scale."""
        factors = _MOST_DIGIT / np.maximum(np.abs(exact).max(axis=1), _SMALLEST)
        rounded = np.rint(exact * factors[:, None])
        missed = np.linalg.norm(exact - rounded / factors[:, None], axis=1) * (1 + _NORM_LOSS)
        numbers[:, : self._turned_dimensions] = rounded
        longest = lengths * (1 + self._loss) + missed
        numbers[:, self._error_digits] = np.ceil(longest * self._error_unit(1.0) * factors)[:, None]
        return Turned(numbers, factors, missed)

    def _turned(self, vectors: NDArray[Float], lengths: Doubles) -> NDArray[Float]:
        """Return `vectors` narrowed and turned, an odd number of dimensions made even."""
        if self.axes is not None:
            vectors = self.axes.narrowed(vectors, lengths)
        turned = np.zeros((len(vectors), self._turned_dimensions), vectors.dtype)
        turned[:, : self._dimensions] = vectors
        return turned if self._signs is None else _turned(turned * self._signs.astype(vectors.dtype))

    def _errors(self, residuals: Matrix, lengths: Doubles, scale: float) -> Doubles:
        """Return what the bounds of vectors exceed their codes by, for a query of length 1."""
        rounding = np.sqrt(np.einsum("ij,ij->i", residuals, residuals).astype(np.float64)) * (1 + _NORM_LOSS) / scale
        errors: Doubles = rounding + self._float_error * (lengths + rounding)
        return errors

    def _error_unit(self, scale: float) -> float:
        counters = self._error_digits.stop - self._error_digits.start
        return (
            self._kind.loose
            * math.sqrt(self._dimensions)
            / scale
            / (_MOST_DIGIT * counters if self._whole else _BASE**2)
        )

    def _square_unit(self, scale: float) -> float:
        return self._kind.full**2 * self._dimensions / 2 / scale**2 / _BASE**3

    def _packed(self, numbers: Matrix) -> Codes:
        if self._kind.item_bytes == 1:
            return (numbers + _BASE).astype(np.uint8)
        return numbers.astype(np.float16).view(np.uint8)


def _width(least: int, kind: _Kind) -> int:
    """Return the width that codes of `least` numbers are padded to so that FAISS scans them fast, for float queries.

    At some widths, others on other processors, it rounds the query to whole numbers first, which no bound allows for.
    An odd multiple of what it reads at a time is none of them; whether it is so here is tried.
    """
    for together in READ_TOGETHER:
        width = (-(-least // together) | 1) * together
        if scans_floats(faiss.ScalarQuantizer(width, kind.quantizer)):
            return width
    raise RuntimeError(f"this FAISS has no scan of {least} coded numbers for a float query")


def _whole_width(turned_dimensions: int, expansion: float) -> int | None:
    """Return the width of codes scanned for whole queries; None where that would be much more than their numbers."""
    counters = max(_COUNTERS_AT_LEAST, turned_dimensions // _DIMENSIONS_A_COUNTER)
    width = -(-(turned_dimensions + counters) // WHOLE_TOGETHER) * WHOLE_TOGETHER
    return width if width <= expansion * turned_dimensions else None


def _counted(numbers: Doubles, places: slice) -> Doubles:
    """Return whole `numbers` counted out over so many digits; the last takes what exceeds what they hold."""
    full = _MOST_DIGIT * np.arange(places.stop - places.start)
    digits: Doubles = np.clip(numbers[:, None] - full, 0, _MOST_DIGIT)
    digits[:, -1] = np.maximum(digits[:, -1], np.minimum(numbers - full[-1], _BASE))
    return digits


def _digits(numbers: Doubles, places: slice) -> Doubles:
    """Return whole `numbers` by digit, highest first; the highest takes what exceeds the digits there are."""
    powers = _powers(places)
    digits = np.floor_divide(numbers[:, None], powers)
    digits[:, 1:] -= digits[:, :-1] * _BASE
    return digits


def _powers(places: slice) -> Doubles:
    return float(_BASE) ** np.arange(places.stop - places.start - 1, -1, -1)


@lru_cache
def _signs(dimensions: int) -> Doubles:
    """Return 1 or -1 for each dimension, an odd number of them made even: always the same ones."""
    return np.random.default_rng(_SEED).choice([-1.0, 1.0], dimensions + dimensions % 2)


def _turned(numbers: NDArray[Float]) -> NDArray[Float]:
    """Return the rows of `numbers`, of even length, turned so that each number is spread over all of its row.

    A step takes the sums of neighbours into the first half and their differences into the second, which is orthogonal
    but for the root of 2. Over a power of 2 as many steps as its logarithm are Hadamard's matrix.
    """
    half = numbers.shape[1] // 2
    steps = math.ceil(math.log2(numbers.shape[1]))
    for _ in range(steps):
        left, right = numbers[:, ::2], numbers[:, 1::2]
        numbers = np.empty_like(numbers)
        np.add(left, right, out=numbers[:, :half])
        np.subtract(left, right, out=numbers[:, half:])
    numbers *= numbers.dtype.type(2 ** (-steps / 2))
    return numbers
