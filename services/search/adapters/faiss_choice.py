"""Which coding costs the least for the vectors and the queries there are: how narrow, or as wide as they are."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from services.common.index_config import VectorStorage
from services.common.vectors import Matrix, Metric
from services.search.adapters.faiss_axes import Axes, principal_axes
from services.search.adapters.faiss_codes import LONGEST, Coding
from services.search.adapters.faiss_scan import Chosen, CodeScan
from services.search.core.scoring import Doubles, lengths_of
from services.search.core.vector_index import Mask, Numbers, Selection

TURNED_WIDTHS = (48, 80, 112, 144, 176, 240, 304, 368, 496, 624)
"""Numbers of narrowed vectors: with the digits behind them, codes of these are whole multiples of what FAISS reads."""
NARROW_SHARE = 0.6
SAMPLE_ROWS = 4096
TRIED_QUERIES = 24
RARE = 8
"""Misses are many where there is at least one in so many searches."""
MISSES_AT_MOST = 2**16
CANDIDATE_COST = 4
"""What a candidate costs besides the scan, in times the bytes of its float32 vector: it lies anywhere in memory."""
KEPT_COST = 1.3
"""The coding there is stays while it costs at most this many times what the best one does: coding anew costs, too."""

ONE_AT_A_TIME = threading.Lock()
"""Choosing takes a processor for a while: one index of a process does at a time."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """A query, shape (dimensions,), and what it takes to answer it: every vector of `selection` as close as `reach`.

    A scan proposes `wanted` candidates, more take a second one.
    """

    query: Matrix
    selection: Selection
    reach: float
    wanted: int


@dataclass(frozen=True, slots=True)
class Trial:
    """Vectors like those of an index of `count`, in `slots`, and lookups by which to try codings on them.

    `directions`, shape (n, dimensions), are the queries as codings take them, of `lengths`.
    """

    vectors: Matrix
    slots: Numbers
    count: int
    lookups: Sequence[Lookup]
    directions: Doubles
    lengths: Doubles

    def cost(self, coding: Coding) -> float:
        """Return about how many bytes a search reads."""
        lengths = lengths_of(self.vectors)
        scale = coding.scale_for(self.vectors, lengths)
        coded = coding.coded(self.vectors, lengths, scale)
        scan, every = CodeScan(coded.codes, coding.quantizer), Chosen(len(self.vectors))
        asked = coding.asked(coding.turned_queries(self.directions, self.lengths), self.lengths, scale)
        reaching = []
        for number, lookup in enumerate(self.lookups):
            rows, _ = scan.above(asked.numbers[number], asked.score(number, lookup.reach), every)
            reaching.append(np.count_nonzero(lookup.selection.has(self.slots[rows])))
        candidates = (np.array(reaching) + np.count_nonzero(coded.loose)) * (self.count / len(self.vectors))
        scans = 1 + np.mean(candidates > [lookup.wanted for lookup in self.lookups])
        of_candidates = CANDIDATE_COST * 4 * self.vectors.shape[1] * candidates.mean()
        return float(self.count * coding.code_bytes * scans + of_candidates)


def usable(vectors: Matrix) -> Mask:
    """Return for each of `vectors` whether a code can tell of it."""
    lengths = lengths_of(vectors)
    telling: Mask = (lengths > 0) & (lengths <= LONGEST)
    return telling


def narrowable(dimensions: int) -> bool:
    """Return whether there is a narrow coding for vectors of `dimensions` at all."""
    return min(TURNED_WIDTHS) <= NARROW_SHARE * dimensions


def chosen(trial: Trial, current: Coding, wide: Coding, metric: Metric) -> Coding:
    """Return the coding of int8 that costs the least in `trial`; `current`, where it costs little more."""
    costs = {coding: trial.cost(coding) for coding in (wide, *_narrow(trial.vectors, metric))}
    best = min(costs, key=costs.__getitem__)
    cost = costs[current] if current in costs else trial.cost(current)
    return current if cost <= KEPT_COST * costs[best] else best


def _narrow(vectors: Matrix, metric: Metric) -> Iterator[Coding]:
    dimensions = vectors.shape[1]
    axes = principal_axes(vectors[::4])
    for width in TURNED_WIDTHS:
        if width <= min(NARROW_SHARE * dimensions, len(axes)):
            yield Coding(dimensions, metric, VectorStorage.INT8, Axes(axes[: width - 1]))


@dataclass(frozen=True, slots=True)
class Asked:
    """What to try codings by: lookups that `missed`, and how many `others`, for which stored vectors stand in."""

    missed: Sequence[Lookup] = ()
    others: int = TRIED_QUERIES


class Misses:
    """Lookups for which narrow codes told too little: the latest of them, and whether they are many."""

    def __init__(self) -> None:
        self._latest: deque[Lookup] = deque(maxlen=TRIED_QUERIES)
        self._lock = threading.Lock()
        self._searches = self._count = 0
        self._needed = TRIED_QUERIES

    def searched(self, queries: int) -> None:
        """Count searches: misses that are rare among them are forgotten."""
        with self._lock:
            self._searches += queries
            if self._searches > RARE * self._needed:
                self._forget()

    def add(self, lookup: Lookup) -> bool:
        """Take one that missed; return whether there are many."""
        with self._lock:
            self._latest.append(lookup)
            self._count += 1
            return self._count >= self._needed

    def taken(self) -> Asked:
        """Return what was asked of late, and begin to count anew."""
        with self._lock:
            others = len(self._latest) * max(0, self._searches - self._count) // max(1, self._count)
            asked = Asked(list(self._latest), min(TRIED_QUERIES, others))
            self._forget()
            return asked

    def tried(self, *, changed: bool) -> None:
        """Learn what came of trying: what did not help is tried again ever more seldom."""
        with self._lock:
            self._needed = TRIED_QUERIES if changed else min(2 * self._needed, MISSES_AT_MOST)

    def _forget(self) -> None:
        self._searches = self._count = 0
        self._latest.clear()
