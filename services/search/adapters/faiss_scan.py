"""The scans of FAISS that an exact search is made of, over memory that numpy holds. A scan lets other threads run."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from services.common.vectors import Matrix
from services.search.index import Bits, Mask, Numbers, Scores

_faiss: Any = faiss  # its stubs know the C++ signatures only, and not all of them
_SIFTED_SHARE = 0.6
_SIFTED_SPARE = 1.25
_RANGE_SHARE = 1 / 8  # of the rows wanted: from there on a heap costs more than taking all there are


@dataclass(frozen=True, slots=True)
class Found:
    """Rows and their scores, in no order. No row left out has a score above `rest`."""

    rows: Numbers
    scores: Scores
    rest: float = -np.inf


@dataclass(frozen=True, slots=True)
class Chosen:
    """The rows that a scan compares: the first `count`, of them those whose bit is set, where there are `bits`.

    `share` is about how many of them those are.
    """

    count: int
    bits: Bits | None = None
    share: float = 1.0

    def among(self, rows: Numbers) -> Numbers:
        """Return those of `rows` that are chosen."""
        rows = rows[rows < self.count]
        return rows if self.bits is None else rows[self.holds(rows)]

    def holds(self, rows: Numbers) -> Mask:
        """Return for each of `rows`, below `count`, whether its bit is set; there must be bits."""
        assert self.bits is not None, "asked of all rows"
        held: Mask = (self.bits[rows >> 3] >> (rows & 7).astype(np.uint8) & 1).astype(np.bool_)
        return held

    def all(self) -> Numbers:
        """Return all chosen rows."""
        return self.among(np.arange(self.count))

    def selector(self) -> Any:
        """Return FAISS's form of it, None for all; it reads the bits where they are, so they must be kept."""
        return None if self.bits is None else _faiss.IDSelectorBitmap(self.bits)


@dataclass(frozen=True, slots=True)
class FloatScan:
    """Scans float32 rows; scores are inner products or, where `squared_distances`, those."""

    vectors: Matrix
    squared_distances: bool

    def nearest(self, query: Matrix, wanted: int, chosen: Chosen) -> Found:
        """Return the `wanted` chosen rows nearest to `query`, shape (dimensions,); all where there are fewer."""
        wanted = min(wanted, chosen.count)
        scores, rows = np.empty(wanted, np.float32), np.empty(wanted, np.int64)
        scan: Callable[..., None] = _faiss.knn_L2sqr if self.squared_distances else _faiss.knn_inner_product
        values = (None,) if self.squared_distances else ()
        sizes = (self.vectors.shape[1], 1, chosen.count, wanted)
        pointers = (_faiss.swig_ptr(scores), _faiss.swig_ptr(rows))
        scan(_faiss.swig_ptr(query), _faiss.swig_ptr(self.vectors), *sizes, *pointers, *values, chosen.selector())
        found = rows >= 0
        return Found(rows[found], scores[found])

    def within(self, query: Matrix, limit: float, chosen: Chosen) -> Numbers:
        """Return all chosen rows whose score is `limit` or nearer."""
        scan: Callable[..., None] = (
            _faiss.range_search_L2sqr if self.squared_distances else _faiss.range_search_inner_product
        )
        radius = np.nextafter(np.float32(limit), np.float32(np.inf if self.squared_distances else -np.inf))
        result = _faiss.RangeSearchResult(1)
        pointers = (_faiss.swig_ptr(query), _faiss.swig_ptr(self.vectors))
        scan(*pointers, self.vectors.shape[1], 1, chosen.count, float(radius), result, chosen.selector())
        return _taken(result).rows

    def at(self, query: Matrix, rows: Numbers) -> Scores:
        """Return the scores of `rows`."""
        scan: Callable[..., None] = (
            _faiss.fvec_L2sqr_by_idx if self.squared_distances else _faiss.fvec_inner_products_by_idx
        )
        scores = np.empty(len(rows), np.float32)
        pointers = [_faiss.swig_ptr(array) for array in (scores, query, self.vectors, rows)]
        scan(*pointers, self.vectors.shape[1], 1, len(rows))
        return scores


@dataclass(frozen=True, slots=True)
class CodeScan:
    """Scans coded rows, each row of `codes` one; scores are inner products of float32 queries with whole codes."""

    codes: NDArray[np.uint8]
    quantizer: Any
    _pointer: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_pointer", _faiss.swig_ptr(self.codes))

    def nearest(self, query: Matrix, wanted: int, beyond: float, chosen: Chosen) -> Found:
        """Return about `wanted` chosen rows, those of the highest scores above `beyond`.

        Where most rows are chosen, it costs less to scan all and sift than to look at each one's bit; unless those that
        are near are not those that are chosen.
        """
        beyond = float(np.float32(beyond))
        if chosen.bits is not None and chosen.share >= _SIFTED_SHARE:
            every = self._nearest(query, int(wanted / chosen.share * _SIFTED_SPARE), beyond, Chosen(chosen.count))
            kept = chosen.holds(every.rows)
            if every.rest == beyond or np.count_nonzero(kept) >= wanted / 2:
                return Found(every.rows[kept], every.scores[kept], every.rest)
        return self._nearest(query, wanted, beyond, chosen)

    def _nearest(self, query: Matrix, wanted: int, beyond: float, chosen: Chosen) -> Found:
        if wanted > chosen.count * _RANGE_SHARE:
            return replace(self.above(query, beyond, chosen), rest=beyond)
        scores, rows = np.full(wanted, beyond, np.float32), np.full(wanted, -1, np.int64)
        selector = chosen.selector()
        pointers = (_faiss.swig_ptr(scores), _faiss.swig_ptr(rows))
        self._scanner(query, selector).scan_codes(chosen.count, self._pointer, None, *pointers, wanted)
        found = rows >= 0
        return Found(rows[found], scores[found], float(scores.min()))

    def above(self, query: Matrix, limit: float, chosen: Chosen) -> Found:
        """Return all chosen rows whose score is above `limit`."""
        result = _faiss.RangeSearchResult(1)
        partial = _faiss.RangeSearchPartialResult(result)
        selector = chosen.selector()
        self._scanner(query, selector).scan_codes_range(chosen.count, self._pointer, None, limit, partial.new_result(0))
        partial.finalize()
        return _taken(result)

    def _scanner(self, query: Matrix, selector: Any) -> Any:
        scanner = self.quantizer.select_InvertedListScanner(_faiss.METRIC_INNER_PRODUCT, None, True, selector, False)
        scanner.list_no = 0  # rows are then told by their number
        scanner.set_query(_faiss.swig_ptr(query))
        return scanner


def one_thread() -> None:
    """Let FAISS compute the calls of this thread in this thread."""
    _faiss.omp_set_num_threads(1)


def scans_floats(quantizer: Any) -> bool:
    """Return whether scans of `quantizer`'s codes take queries as they are, not rounded to whole numbers."""
    query = np.linspace(0.1, 0.4, quantizer.d, dtype=np.float32)
    codes = quantizer.compute_codes(np.ones((1, quantizer.d), np.float32))
    (score,) = CodeScan(codes, quantizer).above(query, -np.inf, Chosen(1)).scores
    return bool(abs(score - query.sum()) < 1e-3 * query.sum())


@lru_cache
def scans_whole(width: int, quantizer: int) -> bool:
    """Return whether FAISS's scans of codes of `width` are exact for queries of whole numbers up to 127."""
    made = _faiss.ScalarQuantizer(width, quantizer)
    numbers = (np.arange(3 * width) * 37 % 255 - 127).reshape(3, width)
    query = (np.arange(width) * 53 % 255 - 127).astype(np.float32)
    found = CodeScan((numbers + 128).astype(np.uint8), made).above(query, -np.inf, Chosen(3))
    return bool(np.array_equal(found.scores[np.argsort(found.rows)], numbers @ query))


def _taken(result: Any) -> Found:
    count = int(_faiss.rev_swig_ptr(result.lims, 2)[1])
    if not count:
        return Found(np.empty(0, np.int64), np.empty(0, np.float32))
    return Found(
        _faiss.rev_swig_ptr(result.labels, count).astype(np.int64), _faiss.rev_swig_ptr(result.distances, count).copy()
    )
