"""The approximate index of one space: built, kept up and replaced behind the searches.

What searches ask is a generation, which never changes: an index of the slots as they were at a moment. Slots written
later are searched beside it, exactly, until a further generation has taken them in. So neither do writes stop searches
nor searches wait for a build, and a build that fails leaves what there was.
"""

import logging
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from services.common.concurrency.retry import Backoff
from services.common.index_config import Exact, IndexConfig
from services.common.vectors import Matrix
from services.search.ann.build_scheduler import Build, BuildScheduler
from services.search.ann.recall_monitor import RecallMonitor, RecallRecord
from services.search.ann.write_clock import ModificationLog
from services.search.core.candidate_index import DEAD_SHARE, AnnFactory, CandidateDraft, CandidateIndex, Kind
from services.search.core.change_feed import Space
from services.search.core.collection_index import State
from services.search.core.portable_index import BuiltIndex
from services.search.core.vector_index import Numbers, Selection

ADDED_AT_A_TIME = 256
CATCH_UPS = 4
LONGEST_RETRY_SECONDS = 300.0
_GLANCE_SECONDS = 0.1

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RefreshPolicy:
    """When slots written since are taken in: from `least` of them on, by a further generation.

    That rests `rest` times as long as making the one before took, unless they have become more than `share` of all;
    after a failure it waits for a random time up to `retry_seconds`, longer from time to time.
    """

    least: int = 1024
    share: float = 0.05
    rest: float = 9.0
    retry_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What approximate indexes need of the process: who makes them, who does the work, and who watches their recall."""

    maker: AnnFactory
    builders: BuildScheduler
    guard: RecallMonitor
    upkeep: RefreshPolicy = RefreshPolicy()


@dataclass(frozen=True, slots=True)
class Slots:
    """What is to be indexed: the slots in use, what returns their vectors, and when they were written."""

    held: Callable[[], Numbers]
    vectors: Callable[[Numbers], Matrix]
    clock: ModificationLog


@dataclass(frozen=True, slots=True)
class Generation:
    """An index of the slots as they were when the clock stood at `moment`, and the recall of its kind since it came."""

    index: CandidateIndex
    kind: Kind
    moment: int
    recall: RecallRecord


class AnnManager:
    """The generations of one space.

    The thread that writes the space configures and looks after it; searches take `generation` at any time.
    """

    def __init__(self, space: Space, slots: Slots, workshop: BuildContext) -> None:
        self._space = space
        self._slots = slots
        self._workshop = workshop
        self._kind: Kind | None = None
        self._build: Build | None = None
        self._lock = threading.Lock()
        self._recent: tuple[Generation | None, int, Numbers] = (None, 0, np.empty(0, np.int64))
        self._rested_at = 0.0
        self._done = ""
        self._failure = ""
        self._failures = 0
        self.generation: Generation | None = None

    def configure(self, config: IndexConfig) -> None:
        """Have the space indexed so from now on; what there is answers until that is done."""
        kind = None if isinstance(config.kind, Exact) else config.kind
        with self._lock:  # or a build that is just done puts its index in place after this
            if kind != self._kind:
                self._kind, self._failure, self._failures, self._done = kind, "", 0, ""
            if kind is None:
                self.generation = None

    def look_after(self, count: int) -> None:
        """Have done what is to be done for the space, which holds `count` vectors."""
        with self._lock:
            if self._build is None and self._due(count):
                self._build = self._work()
                self._workshop.builders.start(self._build)

    def close(self) -> None:
        """Build no more."""
        with self._lock:
            build, self._build = self._build, None
            self._kind = None
        if build is not None:
            self._workshop.builders.stop(build)

    def built(self, slots: Numbers) -> BuiltIndex | None:
        """Return the index that there is, and which of `slots` it knows as they are; None if there is none."""
        generation = self.generation
        if generation is None:
            return None
        current = slots[~self._slots.clock.later(slots, generation.moment)]
        return BuiltIndex(generation.kind, current, generation.index.save)

    def adopt(self, file: BinaryIO, kind: Kind, current: Numbers) -> None:
        """Go on with an index that was built as `kind` says, before any search: it knows the slots `current`.

        Raises:
            ValueError: the file holds none.
        """
        index = self._workshop.maker.load(file)
        self._slots.clock.forget(current)
        self.generation = Generation(index, kind, 1, RecallRecord())

    def recent(self, generation: Generation, selection: Selection) -> Selection | None:
        """Return what of `selection` was written after `generation`; None if nothing."""
        now = self._slots.clock.now
        if now == generation.moment:
            return None
        known, moment, slots = self._recent
        if known is not generation or moment != now:
            slots = self._slots.clock.since(generation.moment)
            self._recent = (generation, now, slots)
        chosen = slots[selection.has(slots)]
        return Selection.of(chosen, selection.extent) if len(chosen) else None

    def condition(self, count: int) -> tuple[State, str]:
        """Return how far the index is, and why, for a space that holds `count` vectors."""
        generation, kind = self.generation, self._kind
        if generation and generation.recall.degraded:
            return State.DEGRADED, generation.recall.note
        if self._failure:
            return State.FAILED, self._failure
        if kind is None or not count or (generation and generation.kind == kind):
            return State.READY, ""
        least = self._workshop.maker.least(kind)
        if count < least:
            return State.WAITING, f"it takes {least:,} vectors, and there are {count:,}: answers are exact until then"
        answering = f"the {generation.index.engine} index from before" if generation else "the exact one"
        return State.BUILDING, f"{self._done or 'it is about to be built'}; {answering} answers"

    def _due(self, count: int) -> bool:
        kind, generation = self._kind, self.generation
        if kind is None or count < self._workshop.maker.least(kind):
            return False
        if generation is None or generation.kind != kind:
            return True
        recent = self._slots.clock.now - generation.moment
        size, least = generation.index.size, self._workshop.upkeep.least
        dead = size - max(0, count - recent)
        return recent > least or dead > max(least, size * DEAD_SHARE)

    def _work(self) -> Build:
        """Do what is due until nothing is."""
        try:
            yield from self._tasks()
        except BaseException:
            self._build = None  # so that the next change begins another
            raise

    def _tasks(self) -> Build:
        while (kind := self._task()) is not None:
            try:
                yield from self._rest(kind)
                began = time.monotonic()
                yield from self._renew(kind)
                self._rested_at = time.monotonic() + self._workshop.upkeep.rest * (time.monotonic() - began)
                self._failure, self._failures = "", 0
            except _OutdatedError:
                continue
            except Exception as error:  # whatever it is, the last good index goes on answering
                log.exception("the index of %s cannot be built", self._space.name)
                self._failure = f"it cannot be built ({_said(error)}); the last good one answers"
                yield from self._wait(kind)

    def _task(self) -> Kind | None:
        """Return what is to be built now; with None the work is at its end."""
        with self._lock:
            if self._due(len(self._slots.held())):
                return self._kind
            self._build = None
            return None

    def _rest(self, kind: Kind) -> Build:
        """Wait until it is worth while to take in what was written."""
        while self._kind is kind and self._resting(kind):
            yield _GLANCE_SECONDS

    def _resting(self, kind: Kind) -> bool:
        generation, upkeep = self.generation, self._workshop.upkeep
        if generation is None or generation.kind != kind or time.monotonic() >= self._rested_at:
            return False
        recent = self._slots.clock.now - generation.moment
        return recent <= max(upkeep.least, upkeep.share * generation.index.size)

    def _wait(self, kind: Kind) -> Build:
        """Wait for the next try after a failure, or for another config."""
        self._failures += 1
        seconds = Backoff(self._workshop.upkeep.retry_seconds, LONGEST_RETRY_SECONDS).pause(self._failures)
        until = time.monotonic() + seconds
        while self._kind is kind and time.monotonic() < until:
            yield min(_GLANCE_SECONDS, seconds)

    def _renew(self, kind: Kind) -> Build:
        """Make a generation of `kind` that holds what there is now, and let it answer; give up if another is wanted."""
        before = self.generation
        if before and before.kind != kind and (retuned := before.index.retuned(kind)):
            self._replace(Generation(retuned, kind, before.moment, RecallRecord()))
            return
        draft, moment = self._extended(before, kind) or (yield from self._begun(kind))
        for _ in range(CATCH_UPS):
            now, slots = self._slots.clock.now, self._slots.held()
            yield from self._fill(draft, np.sort(slots[self._slots.clock.later(slots, moment)]), kind)
            moment = now
            if self._slots.clock.now - now <= self._workshop.upkeep.least:
                break
        recall = before.recall if before and before.kind == kind else RecallRecord()
        self._replace(Generation(draft.finished(), kind, moment, recall))

    def _extended(self, before: Generation | None, kind: Kind) -> tuple[CandidateDraft, int] | None:
        """Return a draft that goes on from `before`, and the moment up to which it holds all; None: begin anew."""
        if before is None or before.kind != kind:
            return None
        slots = self._slots.held()
        later = self._slots.clock.later(slots, before.moment)
        current = np.zeros(int(slots.max(initial=-1)) + 1, np.bool_)
        current[slots[~later]] = True
        draft = before.index.extending(current, int(np.count_nonzero(later)))
        return None if draft is None else (draft, before.moment)

    def _begun(self, kind: Kind) -> Generator[float, None, tuple[CandidateDraft, int]]:
        slots = self._slots.held()

        def draw(count: int) -> Matrix:
            return self._slots.vectors(np.random.default_rng().permutation(slots)[:count])

        self._done = "it learns from a sample"
        return (yield from self._workshop.maker.draft(self._space, kind, len(slots), draw)), 0

    def _fill(self, draft: CandidateDraft, slots: Numbers, kind: Kind) -> Build:
        for begin in range(0, len(slots), ADDED_AT_A_TIME):
            if self._kind is not kind:
                raise _OutdatedError
            part = slots[begin : begin + ADDED_AT_A_TIME]
            draft.add(part, self._slots.vectors(part))
            self._done = f"{begin + len(part):,} of {len(slots):,} vectors are in it"
            yield 0.0

    def _replace(self, generation: Generation) -> None:
        """Let `generation` answer from now on, if it is what is wanted."""
        with self._lock:
            if self._kind is generation.kind:
                self.generation = generation


class _OutdatedError(Exception):
    """Something else is to be built by now."""


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
