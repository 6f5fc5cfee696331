"""A part of an index: rows of vectors as float32 and, where they are asked for, their codes."""

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from services.common.vectors import Matrix, Metric
from services.search.core.scoring import Doubles, chunks, lengths_of
from services.search.core.vector_index import Numbers
from services.search.engines.faiss.codes import CodeTable
from services.search.engines.faiss.filters import RowFilter
from services.search.engines.faiss.float_bounds import FADING, TINY, relative_error, similarity_bounds
from services.search.engines.faiss.quantizer import Quantizer
from services.search.engines.faiss.query_batch import CandidateSet, QueryBatch

LEAST_CAPACITY = 256
ROOM_SHARE = 0.25  # of the memory of the vectors: for codes and copies of codes
OUTLIER_SHARE, OUTLIERS_AT_LEAST = 1 / 64, 8
LEAST_SPARE, SPARE_SHARE = 32, 1 / 8  # of a scan's candidates, the latter of the rows
SCANNED_SHARE = 1 / 3  # of the rows: where more are wanted, all are candidates
MULTIPLIED_QUERIES, MULTIPLIED_WIDTHS = 12, 4  # see `Segment._multiplies`
GATHERED_FLOATS = 2**19  # copied at a time, so that they stay in the cache
LONGEST = 1e18  # the squares of sums of such lengths are within float32

_faiss: Any = faiss  # its stubs know the C++ signatures only
_THE_ONE = np.zeros(1, np.int64)
_METRICS = {
    Metric.COSINE: faiss.METRIC_INNER_PRODUCT,
    Metric.DOT_PRODUCT: faiss.METRIC_INNER_PRODUCT,
    Metric.EUCLIDEAN: faiss.METRIC_L2,
}
Fit = Callable[[Matrix], Quantizer]


class Segment:
    """Rows of vectors from slot `begin` on, in memory that the system hands out as it is touched.

    One writer; readers at any time, of rows that are not written meanwhile. Codes that no longer suit are replaced as a
    whole: a reader goes on with those it took.
    """

    def __init__(self, begin: int, rows: int, dimensions: int, metric: Metric) -> None:
        self.begin, self._metric = begin, metric
        self.vectors: Matrix = np.zeros((rows, dimensions), np.float32)
        self.count = 0
        self.codes: CodeTable | None = None
        self._longest, self._relative = 0.0, relative_error(dimensions)
        self._unchecked = self._outliers_allowed = 0

    @property
    def held(self) -> Matrix:
        """The vectors of the rows ever used."""
        return self.vectors[: self.count]

    @property
    def memory_bytes(self) -> int:
        """Bytes of the rows ever used, and of their codes."""
        codes = self.codes
        return self.held.nbytes + (codes.memory_bytes if codes else 0)

    def write(self, rows: Numbers, vectors: Matrix, fit: Fit | None) -> None:
        """Store `vectors` in `rows`; where there is `fit`, encode them by what it makes of vectors.

        It is asked again once as many rows are written as there are, or many rows are outliers.
        """
        self.vectors[rows] = vectors
        self._longest = max(self._longest, float(lengths_of(vectors).max()))
        rows = np.union1d(rows, np.arange(self.count, int(rows.max()) + 1))
        self.count = max(self.count, int(rows[-1]) + 1)
        if fit is None:
            return
        self._unchecked -= len(rows)
        if self.codes is None or self._unchecked < 0:
            quantizer, self._unchecked = fit(self.held), self.count
            if self.codes is None or not quantizer.is_like(self.codes.quantizer):
                self.encode(quantizer)
                return
        if self.count > self.codes.capacity:
            self.codes = self.codes.grow(self._capacity)
        self.codes.write(rows, self.vectors[rows])
        if len(self.codes.outliers) > self._outliers_allowed:
            self.encode(fit(self.held))

    def encode(self, quantizer: Quantizer | None) -> None:
        """Hold codes by `quantizer` from now on, or none."""
        if quantizer is None:
            self.codes = None
            return
        room_bytes = max(0.0, ROOM_SHARE * 4 * self.vectors.shape[1] - quantizer.projection.width)
        self.codes = CodeTable.encode(quantizer, self.held, self._capacity, room_bytes)
        self._outliers_allowed = 2 * len(self.codes.outliers) + OUTLIERS_AT_LEAST + int(self.count * OUTLIER_SHARE)

    def search(self, batch: QueryBatch, top_k: int, spare: int, chosen: RowFilter) -> CandidateSet:
        """Return for each query about `top_k` and `spare` of the chosen rows, those of the highest bounds, or all."""
        codes, wanted = self.codes, top_k + min(spare, max(LEAST_SPARE, int(chosen.count * SPARE_SHARE)))
        if wanted > chosen.count * SCANNED_SHARE or (codes is None and self._overflows(batch)):
            return self.compare(batch, chosen)
        if codes is None or self._multiplies(batch, codes, chosen):
            return self._scan_floats(batch, min(wanted, top_k + LEAST_SPARE), chosen)
        rows, bounds, rest = codes.search(batch, wanted, chosen)
        if len(outliers := chosen.among(codes.outliers)):
            rows = np.hstack([rows, np.broadcast_to(outliers, (len(batch), len(outliers)))])
            bounds = np.hstack([bounds, self.bounds(batch, outliers)])
        return self._candidates(rows, bounds, rest)

    def compare(self, batch: QueryBatch, chosen: RowFilter) -> CandidateSet:
        """Return all chosen rows, each with the bound that its float32 vector gives."""
        rows = chosen.rows()
        return self._candidates(rows, self.bounds(batch, rows), np.full(len(batch), -np.inf))

    @np.errstate(over="ignore", invalid="ignore")  # what leaves float32 has no bounds
    def bounds(self, batch: QueryBatch, rows: Numbers) -> Doubles:
        """Return upper bounds of the similarity of `rows`, by their float32 vectors: shape (queries, n)."""
        bounds, queries = np.empty((len(batch), len(rows))), [batch.one(number) for number in range(len(batch))]
        for part in chunks(len(rows), self.vectors.shape[1], GATHERED_FLOATS):
            some = rows[part]
            whole = some[-1] - some[0] == len(some) - 1
            vectors = self.vectors[some[0] : some[-1] + 1] if whole else self.vectors[some]
            for number, query in enumerate(queries):
                _, bounds[number, part] = similarity_bounds(vectors, query, _THE_ONE)
        return bounds

    def _scan_floats(self, batch: QueryBatch, wanted: int, chosen: RowFilter) -> CandidateSet:
        """Search the float32 vectors by FAISS, a part at a time where they must be gathered."""
        rows, kind = chosen.rows(), _METRICS[self._metric]
        parts = chunks(len(rows), self.vectors.shape[1], GATHERED_FLOATS) if chosen.bits is not None else (slice(None),)
        sets = []
        for part in parts:
            there = rows[part]
            vectors = self.vectors[there] if chosen.bits is not None else self.vectors[: chosen.limit]
            scores, places = _faiss.knn(batch.floats, vectors, min(wanted, len(there)), metric=kind)
            bounds = self._scan_bounds(batch, scores.astype(np.float64))
            rest = bounds.min(axis=1) if wanted < len(there) else np.full(len(batch), -np.inf)
            sets.append(self._candidates(there[places], bounds, rest))
        found = CandidateSet.concatenate(sets)
        return CandidateSet(found.slots, found.bounds, found.rest.max(axis=1, keepdims=True))

    def _scan_bounds(self, batch: QueryBatch, scores: Doubles) -> Doubles:
        """Return bounds for `scores` of FAISS, shape (queries, n), for vectors of any length there is here."""
        if self._metric is not Metric.EUCLIDEAN:
            return scores + (self._relative * batch.lengths * self._longest)[:, None] + TINY
        squares = scores * (1 - self._relative)
        if batch.queries.size >= _faiss.cvar.distance_compute_blas_threshold:  # by a product and two squares
            squares = scores - self._relative * (batch.lengths[:, None] + self._longest) ** 2
        return FADING - np.sqrt(np.maximum(squares, 0))

    def _candidates(self, rows: Numbers, bounds: Doubles, rest: Doubles) -> CandidateSet:
        return CandidateSet(np.broadcast_to(rows, bounds.shape) + self.begin, bounds, rest[:, None])

    def _multiplies(self, batch: QueryBatch, codes: CodeTable, chosen: RowFilter) -> bool:
        """Return whether a product of float32 matrices costs less than scans of codes."""
        width, dimensions = codes.quantizer.projection.width, self.vectors.shape[1]
        many = len(batch) * width >= MULTIPLIED_QUERIES * dimensions and MULTIPLIED_WIDTHS * width >= dimensions
        return many and chosen.bits is None and not self._overflows(batch)

    def _overflows(self, batch: QueryBatch) -> bool:
        return bool(batch.lengths.max() + self._longest > LONGEST)

    @property
    def _capacity(self) -> int:
        return min(len(self.vectors), max(LEAST_CAPACITY, 2 * self.count))
