"""Exact search by FAISS, ranked as `services.search.core.scoring` scores.

Vectors lie in segments, as float32 and as codes of one byte a number (`quantizer`). FAISS scans the codes; what it
finds is near the truth and never quite it, but each score is an upper bound of a vector's similarity. The vectors of
the highest bounds are scored in float64 (`rerank`) until no bound left reaches the last answer. Where a scan returned
too few candidates to prove that, its segment is scanned for more and at last as float32. So vectors and queries decide
how long a search takes, and never what it answers.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faiss
import numpy as np

from services.common.index_config import VectorStorage
from services.common.vectors import Matrix, Metric
from services.search.core.scoring import chunks, prepared, ranked, scores_of
from services.search.core.vector_index import Numbers, Ranking, Selection
from services.search.engines.faiss.filters import RowFilter
from services.search.engines.faiss.fitting import QuantizerFitter, ScanTuner
from services.search.engines.faiss.query_batch import CandidateSet, QueryBatch
from services.search.engines.faiss.rerank import Reranker
from services.search.engines.faiss.segment import Segment

log = logging.getLogger(__name__)

SEGMENT_ROWS = 2**16
WIDENED = 4  # times as many candidates are asked for where they were too few
BATCH_QUERIES = 128  # searched together
SCORED_AT_ONCE = 48  # slots that it costs more to tell apart by float32 first

_faiss: Any = faiss  # its stubs know the C++ signatures only
_faiss.cvar.distance_compute_blas_threshold = 4096  # numbers of queries from which it multiplies float32 matrices
Part = tuple[Segment, RowFilter]


class FaissIndex:
    """`VectorIndex` over FAISS's scans of codes and of float32 vectors.

    `storage` is what scans read; float32 needs no memory besides that of the vectors. A search of several segments uses
    up to `threads` threads.
    """

    engine = "faiss-exact"

    def __init__(
        self, dimensions: int, metric: Metric, *, storage: VectorStorage = VectorStorage.INT8, threads: int = 1
    ) -> None:
        self._dimensions, self._metric, self._storage = dimensions, metric, storage
        self._pool = ThreadPoolExecutor(threads, "scan", _use_one_thread) if threads > 1 else None
        self._segments: list[Segment] = []
        self._fitter = QuantizerFitter(dimensions, metric)
        self._tuner = ScanTuner()
        self._writing = threading.Lock()
        self._widening: threading.Thread | None = None

    @property
    def memory_bytes(self) -> int:
        """Bytes of the slots ever used, of their codes, and of codes copied for filters."""
        return sum(segment.memory_bytes for segment in self._segments)

    def write(self, slots: Numbers, vectors: Matrix) -> None:
        _use_one_thread()
        with self._writing:
            for part in chunks(len(slots), self._dimensions):
                self._write(slots[part], prepared(vectors[part], self._metric))

    def store_as(self, storage: VectorStorage) -> None:
        if storage is not self._storage:
            with self._writing:
                self._storage = storage
                for segment in self._segments:
                    self._encode(segment)

    def settle(self) -> None:
        """Return once no codes are being made behind the searches."""
        if (widening := self._widening) is not None:
            widening.join()

    def search(self, queries: Matrix, top_k: int, selection: Selection) -> Sequence[Ranking]:
        _use_one_thread()
        answers: list[Ranking] = []
        for begin in range(0, len(queries), BATCH_QUERIES):
            batch = QueryBatch.of(queries[begin : begin + BATCH_QUERIES], self._metric)
            answers += self._search(batch, top_k, selection)
        return answers

    def rank(self, query: Matrix, top_k: int, slots: Numbers) -> Ranking:
        (ranking,) = self._rank(QueryBatch.of(query[None], self._metric), top_k, slots)
        return ranking

    def vectors(self, slots: Numbers) -> Matrix:
        gathered: Matrix = np.empty((len(slots), self._dimensions), np.float32)
        for segment, places, rows in self._by_segment(slots):
            gathered[places] = segment.vectors[rows]
        return gathered

    def _write(self, slots: Numbers, vectors: Matrix) -> None:
        while len(self._segments) * SEGMENT_ROWS <= int(slots.max()):
            begin = len(self._segments) * SEGMENT_ROWS
            self._segments.append(Segment(begin, SEGMENT_ROWS, self._dimensions, self._metric))
        fit = self._fitter.fit if self._storage is VectorStorage.INT8 else None
        for segment, places, rows in self._by_segment(slots):
            segment.write(rows, vectors[places], fit)

    def _encode(self, segment: Segment) -> None:
        if segment.count:
            segment.encode(self._fitter.fit(segment.held) if self._storage is VectorStorage.INT8 else None)

    def _rank(self, batch: QueryBatch, top_k: int, slots: Numbers) -> list[Ranking]:
        """Return for each query the best of `slots`, all of which are compared."""
        if len(slots) <= SCORED_AT_ONCE:
            vectors, metric = self.vectors(slots), self._metric
            return [ranked(slots, scores_of(query, vectors, metric), top_k, metric) for query in batch.queries]
        every = np.broadcast_to(slots, (len(batch), len(slots)))
        answers, _ = Reranker(batch, top_k, self.vectors).rank(every, np.full(every.shape, np.inf))
        return answers

    def _search(self, batch: QueryBatch, top_k: int, selection: Selection) -> list[Ranking]:
        parts = self._parts(selection)
        if selection.listed is not None or not parts:
            return self._rank(batch, top_k, selection.slots())
        found = self._scan(batch, top_k, parts)
        answers, reach = Reranker(batch, top_k, self.vectors).rank(found.slots, found.bounds)
        short = (found.rest > -np.inf) & (found.rest >= reach[:, None])
        numbers, fallbacks = np.flatnonzero(short.any(axis=1)).tolist(), 0
        for number in numbers:
            known = found.slots[number, found.bounds[number] >= reach[number]]
            left = [part for part, is_short in zip(parts, short[number], strict=True) if is_short]
            answers[number], fell_back = self._search_deeper(batch.one(number), top_k, left, known, reach[number])
            fallbacks += fell_back
        if self._tuner.record(len(batch), len(numbers), fallbacks):
            self._widen_behind()
        return answers

    def _scan(self, batch: QueryBatch, top_k: int, parts: Sequence[Part]) -> CandidateSet:
        """Return the candidates of all parts."""
        spare = self._tuner.spare

        def scan(part: Part) -> CandidateSet:
            return part[0].search(batch, top_k, spare, part[1])

        if self._pool is None or len(parts) == 1:
            return CandidateSet.concatenate([scan(part) for part in parts])
        return CandidateSet.concatenate(list(self._pool.map(scan, parts)))

    def _search_deeper(
        self, query: QueryBatch, top_k: int, parts: Sequence[Part], known: Numbers, reach: float
    ) -> tuple[Ranking, bool]:
        """Return the best of `known` slots and of all others of `parts` that may have the similarity `reach`.

        Tell also whether float32 vectors had to be scanned for that.
        """
        slots, fell_back = [known], False
        for segment, chosen in parts:
            wider = WIDENED * (top_k + self._tuner.spare)
            found = None if self._tuner.at_most else segment.search(query, top_k, wider, chosen)
            if found is None or found.rest[0, 0] >= reach:
                found, fell_back = segment.compare(query, chosen), segment.codes is not None
            slots.append(found.slots[found.bounds >= reach])
        ranking = self._rank(query, top_k, np.unique(np.concatenate(slots)))[0]
        return ranking, fell_back

    def _parts(self, selection: Selection) -> list[Part]:
        """Return the segments that hold some of what is selected, and which of their rows that are."""
        held = [segment for segment in self._segments if segment.begin < selection.extent]
        parts = [(segment, RowFilter.of(selection, segment.begin, len(segment.vectors))) for segment in held]
        return [(segment, chosen) for segment, chosen in parts if chosen.count]

    def _by_segment(self, slots: Numbers) -> Iterator[tuple[Segment, Numbers | slice, Numbers]]:
        """Yield the segments of `slots`, the places in `slots` of what lies in each, and its rows there."""
        if len(self._segments) == 1:
            yield self._segments[0], slice(None), slots
            return
        numbers, rows = np.divmod(slots, SEGMENT_ROWS)
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            yield self._segments[number], places, rows[places]

    def _widen_behind(self) -> None:
        """Make wider codes in a thread, next to searches and writes."""
        if self._widening is None:
            self._widening = threading.Thread(target=self._widen, name="widen-codes")
            self._widening.start()

    def _widen(self) -> None:
        try:
            with self._writing:
                widened = self._fitter.keep_all()
            for segment in list(self._segments) if widened else ():
                with self._writing:
                    if not threading.main_thread().is_alive():
                        return
                    self._encode(segment)
        except Exception:  # what there is goes on answering
            log.exception("codes could not be made wider")
        finally:
            self._widening = None


def _use_one_thread() -> None:
    """Let FAISS compute the calls of this thread in this thread."""
    _faiss.omp_set_num_threads(1)
