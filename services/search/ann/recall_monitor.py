"""Keeps an eye on approximate answers: some are repeated exactly, behind the searches, and the recall is kept."""

import asyncio
import logging
import queue
import random
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np

from services.common.vectors import Metric
from services.search.core.collection_index import Recall
from services.search.core.vector_index import Scores

RECALL_AT = 10
WINDOW = 200
ENOUGH = 20
WAITING_AT_MOST = 64
RELIEF_SHARE = 1 / 4
"""Of the way from the floor to 1: so much higher must recall be for answers to be approximate again."""

_BOUNDS = ((0.0, 0.2), (0.2, 0.5), (0.5, 1.0), (1.0, 1.0))
_UNFILTERED = len(_BOUNDS) - 1

log = logging.getLogger(__name__)

Probe = Callable[[], None]
"""Repeats a query both ways and notes what came of it."""


def recall_of(found: Scores, exact: Scores, metric: Metric) -> float:
    """Return which share of the `RECALL_AT` best was found, from scores, best first; equal ones count alike."""
    best = exact[:RECALL_AT]
    good = found[:RECALL_AT] <= best[-1] if metric is Metric.EUCLIDEAN else found[:RECALL_AT] >= best[-1]
    return int(np.count_nonzero(good)) / len(best)


class RecallRecord:
    """The recall of one space's approximate index over its last queries, by the share that their filters left.

    It is `degraded` from when recall is below the floor for one of these shares until, for the same, enough newer
    queries have shown that it is safely above.
    """

    def __init__(self) -> None:
        self._windows = [deque[float](maxlen=WINDOW) for _ in _BOUNDS]
        self._lock = threading.Lock()
        self._fallen: int | None = None
        self.note = ""

    @property
    def degraded(self) -> bool:
        """Whether recall is too low to answer by the index; `note` says why."""
        return self._fallen is not None

    def add(self, share: float, recall: float, floor: float) -> None:
        """Note the recall of a query whose filter left `share` of the vectors, where `floor` is the least wanted."""
        with self._lock:
            place = _place(share)
            self._windows[place].append(recall)
            if self._fallen is None:
                self._judge(place, floor)
            elif self._fallen == place and self._mean(place) >= floor + (1 - floor) * RELIEF_SHARE:
                self._fallen, self.note = None, ""

    def recalls(self) -> Sequence[Recall]:
        """Return what is known, for each share with any queries."""
        with self._lock:
            return [
                Recall(*bounds, sum(window) / len(window), len(window))
                for bounds, window in zip(_BOUNDS, self._windows, strict=True)
                if window
            ]

    def _judge(self, place: int, floor: float) -> None:
        mean = self._mean(place)
        if 0 <= mean < floor:
            above, up_to = _BOUNDS[place]
            which = "without a filter" if place == _UNFILTERED else f"whose filter left {above:.0%} to {up_to:.0%}"
            found = f"recall was {mean:.3f} over {len(self._windows[place])} queries {which}"
            self._fallen, self.note = place, f"{found}, below {floor:g}: answers are exact until it recovers"
            self._windows[place].clear()

    def _mean(self, place: int) -> float:
        """Return the mean of a window; -1 while it has too few queries to tell."""
        window = self._windows[place]
        return sum(window) / len(window) if len(window) >= ENOUGH else -1.0


class RecallMonitor:
    """Has a share of the queries repeated by one thread; what it cannot keep up with is dropped."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._probes: queue.Queue[Probe | None] = queue.Queue(WAITING_AT_MOST)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Repeat queries while the block runs; those that still wait then are dropped."""
        thread = threading.Thread(target=self._work, name="recall")
        thread.start()
        try:
            yield
        finally:
            self._share = 0.0
            await asyncio.to_thread(self._end)
            await asyncio.to_thread(thread.join)

    def chosen(self, count: int) -> Sequence[int]:
        """Choose which of `count` queries to repeat."""
        if self._share <= 0:
            return ()
        return [number for number in range(count) if random.random() < self._share]

    def offer(self, probe: Probe) -> bool:
        """Repeat a query when there is time; return whether there will be."""
        try:
            self._probes.put_nowait(probe)
        except queue.Full:
            return False
        return True

    def _work(self) -> None:
        while (probe := self._probes.get()) is not None:
            try:
                probe()
            except Exception:
                log.exception("a query cannot be repeated")

    def _end(self) -> None:
        """Drop what waits, and let the thread end."""
        while True:
            try:
                self._probes.get_nowait()
            except queue.Empty:
                break
        self._probes.put(None)


def _place(share: float) -> int:
    """Return the number of the bounds that `share` lies in; a filter that leaves all is as none."""
    if share >= 1:
        return _UNFILTERED
    return next(place for place, (above, up_to) in enumerate(_BOUNDS) if above <= share <= up_to)
