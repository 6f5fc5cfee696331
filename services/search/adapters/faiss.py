"""Exact search by FAISS, ranked as `services.search.core.scoring` scores.

FAISS scans in float32, or codes in fewer bytes, so what it finds is near the truth and never quite it. A search takes
bounds instead of scores: no vector is closer to the query than its bound (`faiss_codes`, `faiss_segment`). It settles
the answer among those of the highest bounds (`faiss_settling`); if the scan left out some that might belong to it, a
second one fetches all that reach it.
"""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from services.common.index_config import VectorStorage
from services.common.vectors import Matrix, Metric
from services.search.adapters.faiss_best import Best
from services.search.adapters.faiss_choice import (
    ONE_AT_A_TIME,
    SAMPLE_ROWS,
    TRIED_QUERIES,
    Asked,
    Lookup,
    Misses,
    Trial,
    chosen,
    narrowable,
    usable,
)
from services.search.adapters.faiss_codes import LONGEST, Coding
from services.search.adapters.faiss_scan import one_thread
from services.search.adapters.faiss_segment import Probes
from services.search.adapters.faiss_segments import Part, Segments
from services.search.adapters.faiss_settling import Settling
from services.search.core.scoring import Doubles, chunks, lengths_of, prepared
from services.search.core.vector_index import Numbers, Ranking, Selection

log = logging.getLogger(__name__)

EXPANSION_AT_MOST = 1.18
SPARE_CANDIDATES = 96
SPARE_SHARE = 1 / 2
CHOICE_ROWS, CHOICE_GROWTH = 8192, 4
TRIED_HITS = 10
MISSED_AT_LEAST, MISSED_SHARE = 512, 1 / 64


class FaissIndex:
    """`VectorIndex` over FAISS's exact scans.

    `storage` is what a scan reads; vectors of few dimensions are scanned as float32 whatever it is, because codes would
    be about as large. Codes of int8 become as narrow as the vectors and the queries allow (`faiss_choice`). A search of
    several segments uses up to `threads` threads.
    """

    engine = "faiss-exact"

    def __init__(
        self, dimensions: int, metric: Metric, *, storage: VectorStorage = VectorStorage.INT8, threads: int = 1
    ) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "scan", one_thread) if threads > 1 else None
        self._segments = Segments(dimensions, metric)
        self._storage = storage
        self._coding = _coding(dimensions, metric, storage)
        self._changing, self._starting = threading.Lock(), threading.Lock()
        self._choosing: threading.Thread | None = None
        self._written = 0
        self._written_at_choice = CHOICE_ROWS // CHOICE_GROWTH
        self._misses = Misses()

    @property
    def memory_bytes(self) -> int:
        """Bytes of the slots ever used, and of codes packed for filters."""
        return self._segments.memory_bytes

    def write(self, slots: Numbers, vectors: Matrix) -> None:
        """See `VectorIndex`."""
        one_thread()
        with self._changing:
            for part in chunks(len(slots), self._segments.dimensions):
                self._segments.write(slots[part], prepared(vectors[part], self._segments.metric), self._coding)
            self._written += len(slots)
        if self._written >= CHOICE_GROWTH * self._written_at_choice and self._choose_behind(Asked()):
            self._written_at_choice = self._written

    def store_as(self, storage: VectorStorage) -> None:
        """See `StoresCompactly`. A segment that is not there yet is scanned as float32 meanwhile."""
        if storage is self._storage:
            return
        with self._changing:
            self._storage = storage
            self._coding = _coding(self._segments.dimensions, self._segments.metric, storage)
            for segment in self._segments.all():
                segment.code_by(self._coding)
        self._segments.unpack()
        if self._written >= CHOICE_ROWS:
            self._choose_behind(Asked())

    def settle(self) -> None:
        """Return once no coding is being chosen or made behind the searches."""
        while True:
            with self._starting:
                choosing = self._choosing
            if choosing is None:
                return
            choosing.join()

    def search(self, queries: Matrix, top_k: int, selection: Selection) -> Sequence[Ranking]:
        """See `VectorIndex`."""
        answers, missed = self._searched(queries, top_k, selection)
        self._misses.searched(len(queries))
        for lookup in missed:
            if self._misses.add(lookup):
                self._choose_behind(self._misses.taken())
        return answers

    def rank(self, query: Matrix, top_k: int, slots: Numbers) -> Ranking:
        """See `VectorIndex`."""
        one_thread()
        probes = self._probes(query[None], lengths_of(query[None]), None)
        (ranking,) = Settling(self._segments, probes, top_k).ranked(slots[None])
        return ranking

    def vectors(self, slots: Numbers) -> Matrix:
        """See `VectorIndex`."""
        return self._segments.vectors(slots)

    def _probes(self, queries: Matrix, lengths: Doubles, coding: Coding | None) -> Probes:
        """Return `queries` as segments take them; without `coding`, their codes cannot be scanned."""
        directions = queries.astype(np.float64)
        if self._segments.metric is Metric.COSINE:
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

    def _searched(self, queries: Matrix, top_k: int, selection: Selection) -> tuple[list[Ranking], list[Lookup]]:
        """Return the answers, and those lookups for which narrow codes told too little."""
        one_thread()
        if not len(queries):
            return [], []
        lengths = lengths_of(queries)
        if selection.listed is not None:
            slots = np.broadcast_to(selection.listed, (len(queries), selection.count))
            return Settling(self._segments, self._probes(queries, lengths, None), top_k).ranked(slots), []
        if len(queries) > 1 and self._segments.metric is not Metric.COSINE and lengths.max() > LONGEST:
            # no code tells anything of these: that is no other's business
            return [self._searched(query[None], top_k, selection)[0][0] for query in queries], []
        settling = Settling(self._segments, self._probes(queries, lengths, self._coding), top_k)
        return self._settled(settling, selection)

    def _settled(self, settling: Settling, selection: Selection) -> tuple[list[Ranking], list[Lookup]]:
        parts, wanted = self._segments.parts(selection), _wanted(settling.top_k)
        best = self._proposed(settling.probes, wanted, parts)
        answers, missed = settling.scored(best.slots, best.bounds), []
        reach = settling.reach(answers)
        many = max(MISSED_AT_LEAST, MISSED_SHARE * selection.count)
        for number in np.flatnonzero(best.leaves_out(reach)).tolist():
            one, closeness = settling.one(number), float(reach[number])
            left = [part.segment.within(one.probes, closeness, part.packing) + part.begin for part in parts]
            slots = np.concatenate(left)
            (answers[number],) = one.ranked(slots[None])
            if one.probes.narrow and len(slots) > many:
                missed.append(Lookup(one.probes.queries[0].copy(), selection, closeness, wanted))
        return answers, missed

    def _choose_behind(self, asked: Asked) -> bool:
        """Choose a coding in a thread, by what was `asked`; return whether it does, or need not."""
        if self._storage is not VectorStorage.INT8 or not narrowable(self._segments.dimensions):
            return True
        with self._starting:
            if self._choosing is not None:
                return False
            self._choosing = threading.Thread(target=self._choose, args=(asked,), name="coding")
            try:
                self._choosing.start()
            except RuntimeError:  # no more threads, or this process ends
                self._choosing = None
                return False
            return True

    def _choose(self, asked: Asked) -> None:
        try:
            with ONE_AT_A_TIME:
                changed = self._coded_anew(asked)
            if asked.missed:
                self._misses.tried(changed=changed)
        except Exception:  # what there is goes on answering
            log.exception("no other coding could be chosen")
        finally:
            self._choosing = None

    def _coded_anew(self, asked: Asked) -> bool:
        """Code by what costs the least, if that is another coding; return whether it is.

        Searches and writes go on: what is tried may be read while it is written, which makes a choice little worse.
        """
        one_thread()
        current, wide = self._coding, _coding(self._segments.dimensions, self._segments.metric, VectorStorage.INT8)
        if current is None or wide is None or (trial := self._trial(asked)) is None:
            return False
        found = chosen(trial, current, wide if current.axes else current, self._segments.metric)
        with self._changing:
            if found is current or self._coding is not current:
                return False
            self._coding = found
        for segment in self._segments.all():
            with self._changing:
                if self._coding is not found or not threading.main_thread().is_alive():
                    return False
                segment.code_by(found)
        self._segments.unpack()
        return True

    def _trial(self, asked: Asked) -> Trial | None:
        """Return what to try codings on; None where there is too little."""
        extent = self._segments.extent
        slots = np.arange(0, extent, max(1, extent // SAMPLE_ROWS))
        sample = self.vectors(slots)
        telling = usable(sample)
        sample, slots = sample[telling], slots[telling]
        if len(sample) < TRIED_QUERIES:
            return None
        others = sample[:: len(sample) // TRIED_QUERIES][: asked.others]
        lookups = [*asked.missed, *self._lookups(others, Selection(extent, extent))]
        queries = np.array([lookup.query for lookup in lookups])
        probes = self._probes(queries, lengths_of(queries), None)
        return Trial(sample, slots, extent, lookups, probes.directions.astype(np.float64), probes.lengths)

    def _lookups(self, queries: Matrix, selection: Selection) -> list[Lookup]:
        """Return what it takes to answer `queries`."""
        answers, _ = self._searched(queries, TRIED_HITS, selection)
        settling = Settling(self._segments, self._probes(queries, lengths_of(queries), None), TRIED_HITS)
        reached = zip(queries, settling.reach(answers).tolist(), strict=True)
        return [Lookup(query, selection, reach, _wanted(TRIED_HITS)) for query, reach in reached]


def _wanted(top_k: int) -> int:
    """Return how many candidates a scan is to propose."""
    return top_k + SPARE_CANDIDATES + int(top_k * SPARE_SHARE)


def _coding(dimensions: int, metric: Metric, storage: VectorStorage) -> Coding | None:
    if storage is VectorStorage.FLOAT32:
        return None
    coding = Coding(dimensions, metric, storage)
    return coding if coding.expansion <= EXPANSION_AT_MOST else None


def _proposed(probes: Probes, wanted: int, parts: Sequence[Part]) -> Best:
    """Ask segment by segment, so that what a segment holds is read from memory once for all of `probes`."""
    best = Best(len(probes), wanted)
    for part in parts:
        best.add(part.begin, part.segment.nearest(probes, wanted, part.packing))
    return best
