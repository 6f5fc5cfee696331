"""Exact search by FAISS, ranked as `services.search.scoring` scores.

FAISS scans in float32, or codes in fewer bytes, so what it finds is near the truth and never quite it. A search takes
bounds instead of scores: no vector is closer to the query than its bound (`faiss_codes`, `faiss_segment`). It scores
the vectors of the highest bounds our way, and then every other one whose bound reaches the last of the answers so far;
the rest cannot belong to the answer. If the scan left out some that might, a second one fetches all that reach it.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from services.common.index_config import VectorStorage
from services.common.vectors import Matrix, Metric
from services.search.adapters.faiss_best import Best
from services.search.adapters.faiss_codes import UNIT_ROUNDOFF, Coding
from services.search.adapters.faiss_scan import Chosen, one_thread
from services.search.adapters.faiss_segment import TINY, Probe, Segment
from services.search.index import Mask, Numbers, Ranking, Scores, Selection
from services.search.scoring import CHUNK_FLOATS, Doubles, lengths_of, prepared, ranked, scanned

SEGMENT_BYTES = 48 * 2**20
SEGMENT_ROWS_AT_MOST = 2**16
EXPANSION_AT_MOST = 1.18
SPARE_CANDIDATES = 64
SPARE_SHARE = 1 / 2
SCORED_AT_ONCE = 32
_SCORE_ERROR = 64 * UNIT_ROUNDOFF  # of a score, of the product of the lengths or of the square of the distance
_DOUBLE_ERROR = 2.0**-40


@dataclass(frozen=True, slots=True)
class Part:
    """A segment, the slot of its first row, and the rows that a search chooses of it."""

    begin: int
    segment: Segment
    chosen: Chosen


class FaissIndex:
    """`VectorIndex` over FAISS's exact scans.

    Vectors lie in segments of fixed size whose memory the system hands out as it is touched: growing copies nothing,
    and a search under way is never moved from under. `storage` is what a scan reads; vectors of few dimensions are
    scanned as float32 whatever it is, because codes would be about as large. A search of several segments uses up to
    `threads` threads.
    """

    engine = "faiss-exact"

    def __init__(
        self, dimensions: int, metric: Metric, *, storage: VectorStorage = VectorStorage.INT8, threads: int = 1
    ) -> None:
        self._dimensions = dimensions
        self._metric = metric
        self._threads = threads
        self._segment_rows = max(8, min(SEGMENT_ROWS_AT_MOST, SEGMENT_BYTES // (4 * dimensions)) // 8 * 8)
        self._storage = storage
        self._coding = _coding(dimensions, metric, storage)
        self._pool = ThreadPoolExecutor(threads, "scan", one_thread) if threads > 1 else None
        self._segments: list[Segment] = []
        self._longest = 0.0

    @property
    def memory_bytes(self) -> int:
        """Bytes of the slots ever used."""
        return sum(segment.memory_bytes for segment in self._segments)

    def write(self, slots: Numbers, vectors: Matrix) -> None:
        """See `VectorIndex`."""
        size = max(1, CHUNK_FLOATS // self._dimensions)
        for begin in range(0, len(slots), size):
            self._write(slots[begin : begin + size], vectors[begin : begin + size])

    def store_as(self, storage: VectorStorage) -> None:
        """See `StoresCompactly`. A segment that is not there yet is scanned as float32 meanwhile."""
        if storage is self._storage:
            return
        self._storage, self._coding = storage, _coding(self._dimensions, self._metric, storage)
        for segment in self._segments:
            segment.code_by(self._coding)

    def search(self, queries: Matrix, top_k: int, selection: Selection) -> Sequence[Ranking]:
        """See `VectorIndex`."""
        one_thread()
        if selection.listed is not None:
            return [self._ranked(probe, top_k, selection.listed) for probe in self._probes(queries, None)]
        probes = self._probes(queries, self._coding)
        parts = self._parts(selection)
        wanted = top_k + SPARE_CANDIDATES + int(top_k * SPARE_SHARE)
        proposed = self._proposed(probes, wanted, parts)
        return [self._settled(probe, top_k, best, parts) for probe, best in zip(probes, proposed, strict=True)]

    def rank(self, query: Matrix, top_k: int, slots: Numbers) -> Ranking:
        """See `VectorIndex`."""
        one_thread()
        (probe,) = self._probes(query[None], None)
        return self._ranked(probe, top_k, slots)

    def vectors(self, slots: Numbers) -> Matrix:
        """See `VectorIndex`."""
        if len(self._segments) == 1:
            return self._segments[0].vectors[slots]
        gathered: Matrix = np.empty((len(slots), self._dimensions), np.float32)
        for segment, places, rows in self._by_segment(slots):
            gathered[places] = segment.vectors[rows]
        return gathered

    def _write(self, slots: Numbers, vectors: Matrix) -> None:
        rows = prepared(vectors, self._metric)
        lengths = lengths_of(rows)
        self._longest = max(self._longest, float(lengths.max()))
        while len(self._segments) * self._segment_rows <= int(slots.max()):
            self._segments.append(Segment(self._segment_rows, self._dimensions, self._metric, self._coding))
        for segment, places, held in self._by_segment(slots):
            segment.write(held, rows[places], lengths[places])

    def _by_segment(self, slots: Numbers) -> Iterator[tuple[Segment, Mask | slice, Numbers]]:
        """Yield the segments of `slots`, the places in `slots` of what lies in each, and its rows there."""
        if len(self._segments) == 1:
            yield self._segments[0], slice(None), slots
            return
        numbers, rows = np.divmod(slots, self._segment_rows)
        for number in np.unique(numbers).tolist():
            places = numbers == number
            yield self._segments[number], places, rows[places]

    def _parts(self, selection: Selection) -> list[Part]:
        return [
            Part(begin, segment, chosen)
            for number, segment in enumerate(self._segments)
            if (begin := number * self._segment_rows) < selection.extent
            and (chosen := _chosen(selection, begin, self._segment_rows)) is not None
        ]

    def _probes(self, queries: Matrix, coding: Coding | None) -> list[Probe]:
        """Return `queries` as segments take them; without `coding`, their codes cannot be scanned."""
        lengths = lengths_of(queries)
        directions = queries.astype(np.float64)
        if self._metric is Metric.COSINE:
            directions = np.divide(directions, lengths[:, None], out=directions, where=lengths[:, None] > 0)
            lengths = np.ones(len(queries))
        floats = np.ascontiguousarray(directions, np.float32)
        turned = floats if coding is None else coding.turned_queries(directions)
        return [Probe(*values, coding) for values in zip(queries, floats, lengths.tolist(), turned, strict=True)]

    def _proposed(self, probes: Sequence[Probe], wanted: int, parts: Sequence[Part]) -> Sequence[Best]:
        """Return for each of `probes` the slots of the highest bounds."""
        if self._pool is None or len(parts) < 2:
            return _proposed(probes, wanted, parts)
        shares = [parts[first :: self._threads] for first in range(min(self._threads, len(parts)))]
        found = self._pool.map(lambda share: _proposed(probes, wanted, share), shares)
        return [Best.of(wanted, bests) for bests in zip(*found, strict=True)]

    def _settled(self, probe: Probe, top_k: int, best: Best, parts: Sequence[Part]) -> Ranking:
        """Return the answer, given the slots of the highest bounds."""
        ranking, closeness = self._scored(probe, top_k, best.slots, best.bounds)
        if not best.leaves_out(closeness):
            return ranking
        slots = [part.segment.within(probe, closeness, part.chosen) + part.begin for part in parts]
        return self._ranked(probe, top_k, np.concatenate(slots))

    def _ranked(self, probe: Probe, top_k: int, slots: Numbers) -> Ranking:
        """Return the best of `slots`, all of which are compared."""
        few = len(slots) <= max(top_k, SCORED_AT_ONCE)
        bounds = np.full(len(slots), np.inf) if few else self._bounds(probe, slots)
        ranking, _ = self._scored(probe, top_k, slots, bounds)
        return replace(ranking, compared=len(slots))

    def _bounds(self, probe: Probe, slots: Numbers) -> Doubles:
        """Return the bounds of `slots` by their float32 vectors."""
        bounds = np.empty(len(slots))
        for segment, places, rows in self._by_segment(slots):
            bounds[places] = segment.bounds(probe, rows)
        return bounds

    def _scored(self, probe: Probe, top_k: int, slots: Numbers, bounds: Doubles) -> tuple[Ranking, float]:
        """Return the best of `slots`, given the bounds of their closeness, and how close the last of them is at least.

        That is minus infinity where there are fewer than `top_k`.
        """
        if len(slots) <= max(top_k, SCORED_AT_ONCE):
            scores = self._scores(probe, slots)
            ranking = ranked(slots, scores, top_k, self._metric)
            return ranking, self._closeness(probe, ranking.scores[-1]) if len(slots) >= top_k else -np.inf
        first = np.argpartition(bounds, -top_k)[-top_k:]
        scores = self._scores(probe, slots[first])
        last = scores.max() if self._metric is Metric.EUCLIDEAN else scores.min()
        reach = self._closeness(probe, last)
        reaching = bounds >= reach
        reaching[first] = False
        others = slots[reaching]
        if len(others) > SCORED_AT_ONCE:
            others = others[self._bounds(probe, others) >= reach]
        ranking = ranked(
            np.concatenate([slots[first], others]),
            np.concatenate([scores, self._scores(probe, others)]),
            top_k,
            self._metric,
        )
        return ranking, self._closeness(probe, ranking.scores[-1])

    def _scores(self, probe: Probe, slots: Numbers) -> Scores:
        return scanned(probe.query, slots, self.vectors, self._metric)

    def _closeness(self, probe: Probe, score: np.float32) -> float:
        """Return how close, at least, a vector is whose score is `score` or better."""
        match self._metric:
            case Metric.COSINE:
                return float(score) - _SCORE_ERROR - TINY
            case Metric.DOT_PRODUCT:
                return float(score) - _SCORE_ERROR * probe.length * self._longest - TINY
            case Metric.EUCLIDEAN:
                square, distance = probe.length**2, float(score) ** 2
                return (square - distance * (1 + _SCORE_ERROR)) / 2 - _DOUBLE_ERROR * (square + distance) - TINY


def _coding(dimensions: int, metric: Metric, storage: VectorStorage) -> Coding | None:
    if storage is VectorStorage.FLOAT32:
        return None
    coding = Coding(dimensions, metric, storage)
    return coding if coding.expansion <= EXPANSION_AT_MOST else None


def _chosen(selection: Selection, begin: int, rows: int) -> Chosen | None:
    """Return what `selection` chooses of a segment's `rows`, from slot `begin` on; None where that is nothing."""
    count = min(rows, selection.extent - begin)
    if selection.bits is None:
        return Chosen(count)
    bits = selection.bits[begin // 8 : (begin + count + 7) // 8]
    return Chosen(count, bits, selection.count / selection.extent) if bits.any() else None


def _proposed(probes: Sequence[Probe], wanted: int, parts: Sequence[Part]) -> Sequence[Best]:
    """Ask segment by segment, so that what a segment holds is read from memory once for all of `probes`."""
    bests = [Best(wanted) for _ in probes]
    for part in parts:
        for probe, best in zip(probes, bests, strict=True):
            best.add(part.begin, part.segment.nearest(probe, wanted, best.beyond, part.chosen))
    return bests
