"""Measures the recall of approximate answers: a sample of the queries is repeated exactly in the background."""

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
MIN_QUERIES = 20
MAX_QUEUED = 64
RECOVERY_SHARE = 1 / 4
"""Recall must exceed the floor by this share of the distance to 1 before answers are approximate again."""

_BOUNDS = ((0.0, 0.2), (0.2, 0.5), (0.5, 1.0), (1.0, 1.0))
_UNFILTERED = len(_BOUNDS) - 1

log = logging.getLogger(__name__)

Probe = Callable[[], None]
"""Repeats a query approximately and exactly, and records the recall."""


def recall_of(found: Scores, exact: Scores, metric: Metric) -> float:
    """Return the share of the `RECALL_AT` best that was found, by scores, best first; equal scores count as found."""
    best = exact[:RECALL_AT]
    good = found[:RECALL_AT] <= best[-1] if metric is Metric.EUCLIDEAN else found[:RECALL_AT] >= best[-1]
    return int(np.count_nonzero(good)) / len(best)


class RecallRecord:
    """The recall of one space's approximate index over its last queries, in buckets by the share their filters left.

    It is `degraded` once the recall of a bucket is below the floor, until enough newer queries in the same bucket show
    that it is safely above.
    """

    def __init__(self) -> None:
        self._windows = [deque[float](maxlen=WINDOW) for _ in _BOUNDS]
        self._lock = threading.Lock()
        self._degraded_bucket: int | None = None
        self.note = ""

    @property
    def degraded(self) -> bool:
        """Whether recall is too low to answer by the index; `note` says why."""
        return self._degraded_bucket is not None

    def add(self, share: float, recall: float, floor: float) -> None:
        """Record the recall of a query whose filter left `share` of the vectors, and compare it with `floor`."""
        with self._lock:
            bucket = _bucket(share)
            self._windows[bucket].append(recall)
            if self._degraded_bucket is None:
                self._check_floor(bucket, floor)
            elif self._degraded_bucket == bucket and self._mean(bucket) >= floor + (1 - floor) * RECOVERY_SHARE:
                self._degraded_bucket, self.note = None, ""

    def recalls(self) -> Sequence[Recall]:
        """Return the recall of each bucket with any queries."""
        with self._lock:
            return [
                Recall(*bounds, sum(window) / len(window), len(window))
                for bounds, window in zip(_BOUNDS, self._windows, strict=True)
                if window
            ]

    def _check_floor(self, bucket: int, floor: float) -> None:
        mean = self._mean(bucket)
        if 0 <= mean < floor:
            above, up_to = _BOUNDS[bucket]
            which = "without a filter" if bucket == _UNFILTERED else f"whose filter left {above:.0%} to {up_to:.0%}"
            found = f"recall was {mean:.3f} over {len(self._windows[bucket])} queries {which}"
            self._degraded_bucket, self.note = bucket, f"{found}, below {floor:g}: answers are exact until it recovers"
            self._windows[bucket].clear()

    def _mean(self, bucket: int) -> float:
        """Return the mean recall of a bucket; -1 while it has too few queries."""
        window = self._windows[bucket]
        return sum(window) / len(window) if len(window) >= MIN_QUERIES else -1.0


class RecallMonitor:
    """Repeats a share of the queries in one thread; queries that it cannot keep up with are dropped."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._probes: queue.Queue[Probe | None] = queue.Queue(MAX_QUEUED)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Repeat queries while the block runs; those still queued at its end are dropped."""
        thread = threading.Thread(target=self._run, name="recall")
        thread.start()
        try:
            yield
        finally:
            self._share = 0.0
            await asyncio.to_thread(self._drain)
            await asyncio.to_thread(thread.join)

    def sample(self, count: int) -> Sequence[int]:
        """Return the numbers of the queries to repeat, of `count` in all."""
        if self._share <= 0:
            return ()
        return [number for number in range(count) if random.random() < self._share]

    def submit(self, probe: Probe) -> bool:
        """Queue a probe; return False if the queue is full."""
        try:
            self._probes.put_nowait(probe)
        except queue.Full:
            return False
        return True

    def _run(self) -> None:
        while (probe := self._probes.get()) is not None:
            try:
                probe()
            except Exception:
                log.exception("a query cannot be repeated")

    def _drain(self) -> None:
        """Drop what is queued, and let the thread end."""
        while True:
            try:
                self._probes.get_nowait()
            except queue.Empty:
                break
        self._probes.put(None)


def _bucket(share: float) -> int:
    """Return the bucket of `share`; a filter that leaves everything counts as no filter."""
    if share >= 1:
        return _UNFILTERED
    return next(bucket for bucket, (above, up_to) in enumerate(_BOUNDS) if above <= share <= up_to)
