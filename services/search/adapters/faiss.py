"""Exact search by FAISS, ranked as `services.search.scoring` scores.

FAISS scans in float32, or codes in fewer bytes, so what it finds is near the truth and never quite it. A search takes
bounds instead of scores: no vector is closer to the query than its bound (`faiss_codes`, `faiss_segment`). It scores
the vectors of the highest bounds our way, and then every other one whose bound reaches the last of the answers so far;
the rest cannot belong to the answer. If the scan left out some that might, a second one fetches all that reach it.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from services.common.index_config import VectorStorage
from services.common.vectors import Matrix, Metric
from services.search.adapters.faiss_best import Best
from services.search.adapters.faiss_choice import SAMPLE_ROWS, TRIED_QUERIES, Misses, Trial, chosen, usable
from services.search.adapters.faiss_codes import LONGEST, UNIT_ROUNDOFF, Coding
from services.search.adapters.faiss_scan import Chosen, one_thread
from services.search.adapters.faiss_segment import TINY, Probes, Segment
from services.search.index import Mask, Numbers, Ranking, Selection
from services.search.scoring import Doubles, Scored, chunks, lengths_of, prepared, rankings, scores_of

SEGMENT_BYTES = 48 * 2**20
SEGMENT_ROWS_AT_MOST = 2**16
EXPANSION_AT_MOST = 1.18
SPARE_CANDIDATES = 96
SPARE_SHARE = 1 / 2
SCORED_AT_ONCE = 32
CHOICE_ROWS, CHOICE_GROWTH = 8192, 4
TRIED_HITS = 10
MISSED_AT_LEAST, MISSED_SHARE = 512, 1 / 64
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
        self._coding_anew = threading.RLock()
        self._extent = 0
        self._written = 0
        self._written_at_choice = CHOICE_ROWS // CHOICE_GROWTH
        self._misses = Misses()

    @property
    def memory_bytes(self) -> int:
        """Bytes of the slots ever used."""
        return sum(segment.memory_bytes for segment in self._segments)

    def write(self, slots: Numbers, vectors: Matrix) -> None:
        """See `VectorIndex`."""
        one_thread()
        with self._coding_anew:
            for part in chunks(len(slots), self._dimensions):
                self._write(slots[part], vectors[part])
            self._look_for_coding()

    def store_as(self, storage: VectorStorage) -> None:
        """See `StoresCompactly`. A segment that is not there yet is scanned as float32 meanwhile."""
        if storage is self._storage:
            return
        with self._coding_anew:
            self._storage = storage
            self._code_by(_coding(self._dimensions, self._metric, storage))
            self._written_at_choice = CHOICE_ROWS // CHOICE_GROWTH
            self._look_for_coding()

    def search(self, queries: Matrix, top_k: int, selection: Selection) -> Sequence[Ranking]:
        """See `VectorIndex`."""
        one_thread()
        lengths = lengths_of(queries)
        if len(queries) > 1 and lengths.max() > LONGEST:  # no code tells anything of these: that is no other's business
            return [self.search(query[None], top_k, selection)[0] for query in queries]
        if selection.listed is not None:
            slots = np.broadcast_to(selection.listed, (len(queries), selection.count))
            return self._ranked(self._probes(queries, lengths, None), top_k, slots)
        probes = self._probes(queries, lengths, self._coding)
        parts = self._parts(selection)
        self._misses.searched(len(queries))
        return self._settled(probes, top_k, self._proposed(probes, _wanted(top_k), parts), parts)

    def rank(self, query: Matrix, top_k: int, slots: Numbers) -> Ranking:
        """See `VectorIndex`."""
        one_thread()
        (ranking,) = self._ranked(self._probes(query[None], lengths_of(query[None]), None), top_k, slots[None])
        return ranking

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
        self._extent = max(self._extent, int(slots.max()) + 1)
        self._written += len(slots)

    def _look_for_coding(self) -> None:
        """Choose a coding once enough was written to know, and again whenever that has become much more."""
        if self._storage is VectorStorage.INT8 and self._written >= CHOICE_GROWTH * self._written_at_choice:
            self._written_at_choice = self._written
            self._choose_coding()

    def _choose_coding(self) -> None:
        """Code by what costs the least for the vectors there are, and the queries that missed or, like them, some."""
        current, wide = self._coding, _coding(self._dimensions, self._metric, VectorStorage.INT8)
        if current is None or wide is None or (trial := self._trial()) is None:
            return
        found = chosen(trial, current, wide if current.axes else current, self._metric)
        if found is not current:
            self._code_by(found)

    def _trial(self) -> Trial | None:
        extent = self._extent
        sample = usable(self.vectors(np.arange(0, extent, max(1, extent // SAMPLE_ROWS))))
        if len(sample) < TRIED_QUERIES:
            return None
        queries = np.array(self._misses.latest() or list(sample[:: len(sample) // TRIED_QUERIES]))
        probes = self._probes(queries, lengths_of(queries), None)
        answers = self.search(queries, TRIED_HITS, Selection(extent, extent))
        closeness = self._closeness(probes, np.array([self._cut(answer, TRIED_HITS) for answer in answers]))
        directions = probes.directions.astype(np.float64)
        return Trial(sample, extent, directions, probes.lengths, closeness, _wanted(TRIED_HITS))

    def _code_by(self, coding: Coding | None) -> None:
        self._coding = coding
        for segment in self._segments:
            segment.code_by(coding)

    def _note_miss(self, probe: Probes) -> None:
        """Take note of a query for which narrow codes tell too little; of many, code anew behind the searches."""
        if self._misses.add(probe.queries[0]):
            threading.Thread(target=self._recover, name="coding", daemon=True).start()

    def _recover(self) -> None:
        one_thread()
        with self._coding_anew:
            before = self._coding
            self._choose_coding()
            self._misses.recovered(changed=self._coding is not before)

    def _by_segment(self, slots: Numbers) -> Iterator[tuple[Segment, Mask | slice, Numbers]]:
        """Yield the segments of `slots`, the places in `slots` of what lies in each, and its rows there."""
        if len(self._segments) == 1:
            yield self._segments[0], slice(None), slots
            return
        numbers, rows = np.divmod(slots, self._segment_rows)
        for number in np.flatnonzero(np.bincount(numbers)).tolist():
            places = numbers == number
            yield self._segments[number], places, rows[places]

    def _parts(self, selection: Selection) -> list[Part]:
        return [
            Part(begin, segment, chosen)
            for number, segment in enumerate(self._segments)
            if (begin := number * self._segment_rows) < selection.extent
            and (chosen := _chosen(selection, begin, self._segment_rows)) is not None
        ]

    def _probes(self, queries: Matrix, lengths: Doubles, coding: Coding | None) -> Probes:
        """Return `queries` as segments take them; without `coding`, their codes cannot be scanned."""
        directions = queries.astype(np.float64)
        if self._metric is Metric.COSINE:
            directions = np.divide(directions, lengths[:, None], out=directions, where=lengths[:, None] > 0)
            lengths = np.ones(len(queries))
        floats = np.ascontiguousarray(directions, np.float32)
        turned = None if coding is None else coding.turned_queries(directions, lengths)
        return Probes(queries, floats, lengths, turned, coding)

    def _proposed(self, probes: Probes, wanted: int, parts: Sequence[Part]) -> Best:
        """Return for each of `probes` the slots of the highest bounds."""
        if self._pool is None or len(parts) < 2:
            return _proposed(probes, wanted, parts)
        shares = [parts[first :: self._threads] for first in range(min(self._threads, len(parts)))]
        return Best.of(len(probes), wanted, self._pool.map(lambda share: _proposed(probes, wanted, share), shares))

    def _settled(self, probes: Probes, top_k: int, best: Best, parts: Sequence[Part]) -> list[Ranking]:
        """Return the answers, given the slots of the highest bounds."""
        answers, closeness = self._scored(probes, top_k, best.slots, best.bounds)
        missed = max(MISSED_AT_LEAST, MISSED_SHARE * sum(part.chosen.count for part in parts))
        for number in np.flatnonzero(best.leaves_out(closeness)).tolist():
            probe, reach = probes.one(number), float(closeness[number])
            slots = np.concatenate([part.segment.within(probe, reach, part.chosen) + part.begin for part in parts])
            (answers[number],) = self._ranked(probe, top_k, slots[None])
            if probes.coding and probes.coding.axes and len(slots) > missed:
                self._note_miss(probe)
        return answers

    def _ranked(self, probes: Probes, top_k: int, slots: Numbers) -> list[Ranking]:
        """Return for each query the best of slots[i], shape (queries, n), all of which are compared."""
        few = slots.shape[1] <= max(top_k, SCORED_AT_ONCE)
        bounds = np.full(slots.shape, np.inf) if few else self._bounds(probes, slots)
        answers, _ = self._scored(probes, top_k, slots, bounds)
        return [replace(ranking, compared=slots.shape[1]) for ranking in answers]

    def _bounds(self, probes: Probes, slots: Numbers) -> Doubles:
        """Return the bounds of slots[i], shape (queries, n), by their float32 vectors."""
        bounds = np.empty(slots.shape)
        for number, of_one in enumerate(slots):
            for segment, places, rows in self._by_segment(of_one):
                bounds[number, places] = segment.bounds(probes.one(number), rows[None])[0]
        return bounds

    def _scored(self, probes: Probes, top_k: int, slots: Numbers, bounds: Doubles) -> tuple[list[Ranking], Doubles]:
        """Return for each query the best of its slots, and how close the last of them is at least.

        `slots` and the `bounds` of their closeness have shape (queries, n); slots that are `NOWHERE` do not count. How
        close the last is is minus infinity where there are fewer than `top_k`.
        """
        there = slots >= 0
        if slots.shape[1] <= max(top_k, SCORED_AT_ONCE):
            scored = self._scores(probes, slots, there)
        else:
            first = np.zeros_like(there)
            first[np.arange(len(first))[:, None], np.argpartition(bounds, -top_k, axis=1)[:, -top_k:]] = True
            scored = self._scores(probes, slots, first & there)
            reach = self._closeness(probes, self._last(scored, len(probes), top_k))
            scored += self._scores(probes, slots, self._reaching(probes, reach, slots, bounds, ~first & there))
        answers = rankings(len(probes), scored, top_k, self._metric)
        return answers, self._closeness(probes, np.array([self._cut(answer, top_k) for answer in answers]))

    def _reaching(self, probes: Probes, reach: Doubles, slots: Numbers, bounds: Doubles, there: Mask) -> Mask:
        """Return which of `slots`, of those `there`, may be as close as `reach`, shape (queries,)."""
        reaching: Mask = there & (bounds >= reach[:, None])
        for number in np.flatnonzero(np.count_nonzero(reaching, axis=1) > SCORED_AT_ONCE).tolist():
            places = np.flatnonzero(reaching[number])
            closest = self._bounds(probes.one(number), slots[number, places][None])[0]
            reaching[number, places] = closest >= reach[number]
        return reaching

    def _scores(self, probes: Probes, slots: Numbers, wanted: Mask) -> Scored:
        """Score those of `slots` that are `wanted`."""
        numbers, places = np.nonzero(wanted)
        chosen = slots[numbers, places]
        scores = np.empty(len(chosen), np.float32)
        for part in chunks(len(chosen), self._dimensions):
            asked = probes.queries[numbers[part]] if len(probes) > 1 else probes.queries[0]
            scores[part] = scores_of(asked, self.vectors(chosen[part]), self._metric)
        return Scored(numbers, chosen, scores)

    def _last(self, scored: Scored, queries: int, top_k: int) -> Doubles:
        """Return the score of the last of each query's `top_k`; the worst there is, where it has fewer."""
        further = np.maximum if self._metric is Metric.EUCLIDEAN else np.minimum
        last = np.full(queries, -self._worst)
        further.at(last, scored.numbers, scored.scores)
        last[np.bincount(scored.numbers, minlength=queries) < top_k] = self._worst
        return last

    def _cut(self, answer: Ranking, top_k: int) -> float:
        return float(answer.scores[-1]) if len(answer.scores) >= top_k else self._worst

    @property
    def _worst(self) -> float:
        return np.inf if self._metric is Metric.EUCLIDEAN else -np.inf

    def _closeness(self, probes: Probes, scores: Doubles) -> Doubles:
        """Return how close, at least, a vector is whose score for query i is scores[i] or better."""
        match self._metric:
            case Metric.COSINE:
                return scores - _SCORE_ERROR - TINY
            case Metric.DOT_PRODUCT:
                return scores - _SCORE_ERROR * probes.lengths * self._longest - TINY
            case Metric.EUCLIDEAN:
                squares, distances = probes.lengths**2, scores**2
                close: Doubles = (squares - distances * (1 + _SCORE_ERROR)) / 2
                return close - _DOUBLE_ERROR * (squares + distances) - TINY


def _wanted(top_k: int) -> int:
    """Return how many candidates a scan is to propose."""
    return top_k + SPARE_CANDIDATES + int(top_k * SPARE_SHARE)


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


def _proposed(probes: Probes, wanted: int, parts: Sequence[Part]) -> Best:
    """Ask segment by segment, so that what a segment holds is read from memory once for all of `probes`."""
    best = Best(len(probes), wanted)
    for part in parts:
        best.add(part.begin, part.segment.nearest(probes, wanted, part.chosen))
    return best
