"""Exact search by FAISS, ranked as `services.search.scoring` scores.

FAISS scans float32 in its own order of summation, so its scores are near ours, not equal. A search therefore takes
some more candidates than asked, scores them our way, and knows from the error bound of a float32 sum whether one that
it left out could still belong to the answer. If so, which takes near-equal scores around the cut, a second scan
fetches all within the bound.

Bound: a sum of n products in float32, in any order, is off by at most n·u/(1 - n·u) times the sum of the absolute
products, u = 2^-24 (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, ch. 3).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from services.common.vectors import Matrix, Metric
from services.search.index import Numbers, Ranking, Scores, Selection
from services.search.scoring import Doubles, lengths_of, prepared, ranked, scanned

SEGMENT_BYTES = 64 * 2**20
SEGMENT_ROWS_AT_MOST = 2**18
SPARE_CANDIDATES = 16
SPARE_SHARE = 1 / 4
_UNIT_ROUNDOFF = 2.0**-24
_SLACK = 32  # roundings besides those of the sum: scaling to length 1, the square root, the last one to float32
_TINY = 2.0**-100  # far above what float32 loses where numbers fade into 0
_FLOAT32_HUGE = 1e37  # products up to here cannot overflow float32


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Slots and FAISS's scores as keys, lower is nearer."""

    slots: Numbers
    keys: Doubles


class FaissIndex:
    """`VectorIndex` over FAISS's exact scans.

    Vectors lie in segments of fixed size whose memory the system hands out as it is touched: growing copies nothing,
    and a search under way is never moved from under.
    """

    engine = "faiss-exact"

    def __init__(self, dimensions: int, metric: Metric, threads: int = 1) -> None:
        self._dimensions = dimensions
        self._metric = metric
        self._threads = threads
        self._segment_rows = min(SEGMENT_ROWS_AT_MOST, SEGMENT_BYTES // (4 * dimensions)) // 8 * 8
        self._segments: list[Matrix] = []
        self._longest = 0.0
        self._extent = 0

    @property
    def memory_bytes(self) -> int:
        """Bytes of the slots ever used."""
        return self._extent * self._dimensions * 4

    def write(self, slots: Numbers, vectors: Matrix) -> None:
        """See `VectorIndex`."""
        if not len(slots):
            return
        rows = prepared(vectors, self._metric)
        self._longest = max(self._longest, float(lengths_of(rows).max()))
        self._reserve(int(slots.max()) + 1)
        segments, places = np.divmod(slots, self._segment_rows)
        for segment in np.unique(segments):
            chosen = segments == segment
            self._segments[segment][places[chosen]] = rows[chosen]

    def search(self, queries: Matrix, top_k: int, selection: Selection) -> Sequence[Ranking]:
        """See `VectorIndex`."""
        return [self._search(query, top_k, selection) for query in queries]

    def rank(self, query: Matrix, top_k: int, slots: Numbers) -> Ranking:
        """See `VectorIndex`."""
        return ranked(slots, scanned(query, slots, self.vectors, self._metric), top_k, self._metric)

    def _search(self, query: Matrix, top_k: int, selection: Selection) -> Ranking:
        if selection.listed is not None or self._overflows(query):
            return self.rank(query, top_k, selection.slots())
        faiss.omp_set_num_threads(self._threads)  # of this thread only
        direction = np.ascontiguousarray(prepared(query[None, :], self._metric))
        near = self._nearest(direction, top_k + max(SPARE_CANDIDATES, int(top_k * SPARE_SHARE)), selection)
        ranking = self.rank(query, top_k, near.slots)
        if len(near.slots) < selection.count:
            reach = self._reach(query, ranking.scores[top_k - 1])
            if reach >= near.keys.max():
                return self.rank(query, top_k, self._within(direction, reach, selection))
        return ranking

    def vectors(self, slots: Numbers) -> Matrix:
        """See `VectorIndex`."""
        if len(self._segments) == 1:
            return self._segments[0][slots]
        gathered: Matrix = np.empty((len(slots), self._dimensions), np.float32)
        segments, places = np.divmod(slots, self._segment_rows)
        for segment in np.unique(segments):
            chosen = segments == segment
            gathered[chosen] = self._segments[segment][places[chosen]]
        return gathered

    def _reserve(self, extent: int) -> None:
        while len(self._segments) * self._segment_rows < extent:
            self._segments.append(np.empty((self._segment_rows, self._dimensions), np.float32))
        self._extent = max(self._extent, extent)

    def _nearest(self, direction: Matrix, wanted: int, selection: Selection) -> _Candidates:
        """Return the `wanted` slots nearest by FAISS's scores; all where there are fewer."""
        parts = [self._segment_nearest(direction, wanted, *part) for part in self._parts(selection)]
        slots, keys = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        if len(keys) > wanted:
            kept = np.argpartition(keys, wanted - 1)[:wanted]
            slots, keys = slots[kept], keys[kept]
        return _Candidates(slots, keys)

    def _segment_nearest(
        self, direction: Matrix, wanted: int, begin: int, vectors: Matrix, selector: Any
    ) -> tuple[Numbers, Doubles]:
        wanted = min(wanted, len(vectors))
        scores, places = np.empty(wanted, np.float32), np.empty(wanted, np.int64)
        sizes = (self._dimensions, 1, len(vectors), wanted)
        pointers = (faiss.swig_ptr(scores), faiss.swig_ptr(places))
        if self._metric is Metric.EUCLIDEAN:
            faiss.knn_L2sqr(faiss.swig_ptr(direction), faiss.swig_ptr(vectors), *sizes, *pointers, None, selector)
        else:
            faiss.knn_inner_product(faiss.swig_ptr(direction), faiss.swig_ptr(vectors), *sizes, *pointers, selector)
        found = places >= 0
        return places[found] + begin, self._keys(scores[found])

    def _within(self, direction: Matrix, reach: float, selection: Selection) -> Numbers:
        """Return every slot whose key is at most `reach`."""
        found = [self._segment_within(direction, reach, *part) for part in self._parts(selection)]
        return np.concatenate(found)

    def _segment_within(self, direction: Matrix, reach: float, begin: int, vectors: Matrix, selector: Any) -> Numbers:
        scan: Callable[..., None]
        if self._metric is Metric.EUCLIDEAN:
            scan, radius = faiss.range_search_L2sqr, np.nextafter(np.float32(reach), np.float32(np.inf))
        else:
            scan, radius = faiss.range_search_inner_product, np.nextafter(np.float32(-reach), np.float32(-np.inf))
        result = faiss.RangeSearchResult(1)
        pointers = (faiss.swig_ptr(direction), faiss.swig_ptr(vectors))
        scan(*pointers, self._dimensions, 1, len(vectors), float(radius), result, selector)
        count = int(faiss.rev_swig_ptr(result.lims, 2)[1])
        places: Numbers = faiss.rev_swig_ptr(result.labels, count).astype(np.int64) if count else np.empty(0, np.int64)
        return places + begin

    def _parts(self, selection: Selection) -> Iterator[tuple[int, Matrix, Any]]:
        """Yield the segments of `selection`: first slot, vectors, FAISS's selector or None for all."""
        for number, segment in enumerate(self._segments):
            begin = number * self._segment_rows
            rows = min(self._segment_rows, selection.extent - begin)
            if rows > 0:
                yield begin, segment[:rows], _selector(selection, begin, rows)

    def _keys(self, scores: Scores) -> Doubles:
        return scores.astype(np.float64) * (1 if self._metric is Metric.EUCLIDEAN else -1)

    def _reach(self, query: Matrix, score: np.float32) -> float:
        """Return a key that no slot exceeds whose true score is at least as good as `score`."""
        error = (self._dimensions + _SLACK) * 2 * _UNIT_ROUNDOFF
        if self._metric is Metric.EUCLIDEAN:
            return float(score) ** 2 * (1 + error) + _TINY
        scale = 1.0 if self._metric is Metric.COSINE else _length(query) * self._longest
        return -float(score) + error * scale + _TINY

    def _overflows(self, query: Matrix) -> bool:
        match self._metric:
            case Metric.COSINE:
                return False
            case Metric.DOT_PRODUCT:
                return _length(query) * self._longest > _FLOAT32_HUGE
            case Metric.EUCLIDEAN:
                return (_length(query) + self._longest) ** 2 > _FLOAT32_HUGE


def _selector(selection: Selection, begin: int, rows: int) -> Any:
    if selection.bits is None:
        return None
    bits = selection.bits[begin // 8 : (begin + rows + 7) // 8]
    make: Any = faiss.IDSelectorBitmap  # its stub knows the C++ signature only
    return make(bits)


def _length(vector: Matrix) -> float:
    return float(np.linalg.norm(vector.astype(np.float64)))
