"""The scans of FAISS that an exact search is made of, over memory that numpy holds. A scan lets other threads run."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from services.common.vectors import MAX_DIMENSIONS, Matrix
from services.search.core.vector_index import Bits, Mask, Numbers, Scores

NOWHERE = -1
"""The row of what was not found."""
MATRIX_NUMBERS = MAX_DIMENSIONS + 1
"""Numbers in queries from which FAISS multiplies matrices of float32: more than any one query has."""

_faiss: Any = faiss  # its stubs know the C++ signatures only, and not all of them
_faiss.cvar.distance_compute_blas_threshold = MATRIX_NUMBERS
_MULTIPLIED_QUERIES, _MULTIPLIED_QUERIES_AVX512, _NARROW_TIMES = 12, 32, 4
_RANGE_SHARE = 1 / 8


@dataclass(frozen=True, slots=True)
class Found:
    """Rows and their scores, shape (queries, n), in no order. Where a query has fewer, rows are `NOWHERE`.

    Those have a score that is further than any. No row left out has a score above `rest`, shape (queries,).
    """

    rows: Numbers
    scores: Scores
    rest: Scores


@dataclass(frozen=True, slots=True)
class Chosen:
    """The rows that a scan compares: the first `count`, of them those whose bit is set, where there are `bits`."""

    count: int
    bits: Bits | None = None

    def in_heap(self, wanted: int) -> bool:
        """Return whether to look for the `wanted` best costs less than to take all there are."""
        return wanted <= self.count * _RANGE_SHARE

    def among(self, rows: Numbers) -> Numbers:
        """Return those of `rows` that are chosen."""
        rows = rows[rows < self.count]
        if self.bits is None:
            return rows
        held: Mask = (self.bits[rows >> 3] >> (rows & 7).astype(np.uint8) & 1).astype(np.bool_)
        return rows[held]

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

    def nearest(self, queries: Matrix, wanted: int, chosen: Chosen) -> tuple[Numbers, Scores]:
        """Return the `wanted` chosen rows nearest to each of `queries`, shape (n, dimensions), and their scores."""
        wanted = min(wanted, chosen.count)
        rows, scores = np.empty((len(queries), wanted), np.int64), np.empty((len(queries), wanted), np.float32)
        scan: Callable[..., None] = _faiss.knn_L2sqr if self.squared_distances else _faiss.knn_inner_product
        values = (None,) if self.squared_distances else ()
        sizes = (self.vectors.shape[1], len(queries), chosen.count, wanted)
        pointers = (_faiss.swig_ptr(scores), _faiss.swig_ptr(rows))
        scan(_faiss.swig_ptr(queries), _faiss.swig_ptr(self.vectors), *sizes, *pointers, *values, chosen.selector())
        scores[rows < 0] = np.inf if self.squared_distances else -np.inf
        return rows, scores

    def multiplies(self, queries: Matrix, wanted: int, chosen: Chosen, *, narrow_codes: bool) -> bool:
        """Return whether `nearest` multiplies matrices for them, and so costs less than scans of codes would.

        AVX-512 multiplies whole numbers far faster than AVX2 does, floats little.
        """
        fewest = _MULTIPLIED_QUERIES_AVX512 if _has_avx512() else _MULTIPLIED_QUERIES
        many = len(queries) >= fewest * (_NARROW_TIMES if narrow_codes else 1)
        return chosen.bits is None and many and queries.size >= MATRIX_NUMBERS and chosen.in_heap(wanted)

    def within(self, query: Matrix, limit: float, chosen: Chosen) -> Numbers:
        """Return all chosen rows whose score for `query`, shape (dimensions,), is `limit` or nearer."""
        scan: Callable[..., None] = (
            _faiss.range_search_L2sqr if self.squared_distances else _faiss.range_search_inner_product
        )
        radius = np.nextafter(np.float32(limit), np.float32(np.inf if self.squared_distances else -np.inf))
        result = _faiss.RangeSearchResult(1)
        pointers = (_faiss.swig_ptr(query), _faiss.swig_ptr(self.vectors))
        scan(*pointers, self.vectors.shape[1], 1, chosen.count, float(radius), result, chosen.selector())
        return _taken(result)[0]

    def at(self, queries: Matrix, rows: Numbers) -> Scores:
        """Return the scores of rows[i], for queries[i] each, in the shape of `rows`: (queries, n)."""
        scan: Callable[..., None] = (
            _faiss.fvec_L2sqr_by_idx if self.squared_distances else _faiss.fvec_inner_products_by_idx
        )
        rows = np.ascontiguousarray(rows)
        scores = np.empty(rows.shape, np.float32)
        pointers = [_faiss.swig_ptr(array) for array in (scores, queries, self.vectors, rows)]
        scan(*pointers, self.vectors.shape[1], *rows.shape)
        return scores


@dataclass(frozen=True, slots=True)
class CodeScan:
    """Scans coded rows, each row of `codes` one; scores are inner products of float32 queries with whole codes."""

    codes: NDArray[np.uint8]
    quantizer: Any
    _own: threading.local = field(init=False, default_factory=threading.local)

    def nearest(self, queries: Matrix, wanted: int, chosen: Chosen) -> Found:
        """Return for each of `queries`, shape (n, width), the `wanted` chosen rows of the highest scores, or all.

        FAISS searches for all in one call: between calls another thread may take the interpreter, which then waits.
        """
        if not chosen.in_heap(wanted):
            return self._every(queries, chosen)
        parameters = None if chosen.bits is None else _faiss.SearchParameters(sel=chosen.selector())
        scores, rows = self._index(chosen.count).search(queries, wanted, params=parameters)
        scores[rows < 0] = -np.inf
        return Found(rows, scores, scores[:, -1].copy())

    def above(self, query: Matrix, limit: float, chosen: Chosen) -> tuple[Numbers, Scores]:
        """Return all chosen rows whose score for `query`, shape (width,), is above `limit`, and their scores."""
        result = _faiss.RangeSearchResult(1)
        partial = _faiss.RangeSearchPartialResult(result)
        selector = chosen.selector()
        scanner = self.quantizer.select_InvertedListScanner(_faiss.METRIC_INNER_PRODUCT, None, True, selector, False)
        scanner.list_no = 0  # rows are then told by their number
        scanner.set_query(_faiss.swig_ptr(query))
        codes = _faiss.swig_ptr(self.codes)
        scanner.scan_codes_range(chosen.count, codes, None, limit, partial.new_result(0))
        partial.finalize()
        return _taken(result)

    def _every(self, queries: Matrix, chosen: Chosen) -> Found:
        """Return all chosen rows: for each query the same, in the same order."""
        rows, scores = zip(*(self.above(query, -np.inf, chosen) for query in queries), strict=True)
        return Found(np.stack(rows), np.stack(scores), np.full(len(queries), -np.inf, np.float32))

    def _index(self, count: int) -> Any:
        """Return FAISS's index of the first `count` codes, where they lie. A thread has its own: it holds the count."""
        if not hasattr(self._own, "index"):
            quantizer = (self.quantizer.d, self.quantizer.qtype, _faiss.METRIC_INNER_PRODUCT)
            self._own.index, self._own.count = _faiss.IndexScalarQuantizer(*quantizer), 0
            codes = self._own.index.codes
            view = codes.create_view(_faiss.swig_ptr(self.codes), self.codes.size, codes.owner)
            self._own.index.codes = view
        if self._own.count != count:
            self._own.index.ntotal = self._own.count = count
        return self._own.index


def one_thread() -> None:
    """Let FAISS compute the calls of this thread in this thread."""
    _faiss.omp_set_num_threads(1)


def scans_floats(quantizer: Any) -> bool:
    """Return whether scans of `quantizer`'s codes take queries as they are, not rounded to whole numbers."""
    query = np.linspace(0.1, 0.4, quantizer.d, dtype=np.float32)
    codes = quantizer.compute_codes(np.ones((1, quantizer.d), np.float32))
    _, (score,) = CodeScan(codes, quantizer).above(query, -np.inf, Chosen(1))
    return bool(abs(score - query.sum()) < 1e-3 * query.sum())


@cache
def _has_avx512() -> bool:
    return bool(_faiss.SIMDConfig.is_simd_level_available(_faiss.SIMDLevel_AVX512))


@lru_cache
def scans_whole(width: int, quantizer: int) -> bool:
    """Return whether FAISS's scans of codes of `width` are exact for queries of whole numbers up to 127."""
    made = _faiss.ScalarQuantizer(width, quantizer)
    numbers = (np.arange(3 * width) * 37 % 255 - 127).reshape(3, width)
    query = (np.arange(width) * 53 % 255 - 127).astype(np.float32)
    rows, scores = CodeScan((numbers + 128).astype(np.uint8), made).above(query, -np.inf, Chosen(3))
    return bool(np.array_equal(scores[np.argsort(rows)], numbers @ query))


def _taken(result: Any) -> tuple[Numbers, Scores]:
    count = int(_faiss.rev_swig_ptr(result.lims, 2)[1])
    if not count:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    rows, scores = _faiss.rev_swig_ptr(result.labels, count), _faiss.rev_swig_ptr(result.distances, count)
    return rows.astype(np.int64), scores.copy()
