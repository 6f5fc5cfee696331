"""The approximate index of one space: built, refreshed and replaced in the background.

Searches use a generation, which is immutable: an index of the slots as of one sequence number. Slots modified later are
searched exactly beside it, until the next generation includes them. So writes do not block searches, searches do not
wait for builds, and a failed build leaves the current generation in place.
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
from services.search.ann.modification_log import ModificationLog
from services.search.ann.recall_monitor import RecallMonitor, RecallRecord
from services.search.core.candidate_index import MAX_DEAD_SHARE, AnnBuilder, AnnFactory, AnnKind, CandidateIndex
from services.search.core.change_feed import Space
from services.search.core.collection_index import State
from services.search.core.portable_index import AnnExport
from services.search.core.vector_index import Numbers, Selection

ADD_BATCH_SIZE = 256
MAX_CATCH_UP_ROUNDS = 4
MAX_RETRY_SECONDS = 300.0
_POLL_SECONDS = 0.1

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RefreshPolicy:
    """When the next generation is built: once more than `min_modified` slots were modified since the last one.

    Before it, `rest_factor` times the duration of the last build must have passed, unless more than
    `max_modified_share` of all slots were modified. After a failure it waits a random time up to `retry_seconds`, with
    exponential backoff.
    """

    min_modified: int = 1024
    max_modified_share: float = 0.05
    rest_factor: float = 9.0
    retry_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What the approximate indexes of a process share."""

    factory: AnnFactory
    scheduler: BuildScheduler
    monitor: RecallMonitor
    policy: RefreshPolicy = RefreshPolicy()


@dataclass(frozen=True, slots=True)
class SlotSource:
    """What is indexed: the slots in use, their vectors, and when each was modified."""

    used: Callable[[], Numbers]
    vectors: Callable[[Numbers], Matrix]
    modifications: ModificationLog


@dataclass(frozen=True, slots=True)
class Generation:
    """An index of the slots as of `sequence_number`, and the recall of indexes of its kind."""

    index: CandidateIndex
    kind: AnnKind
    sequence_number: int
    recall: RecallRecord


class AnnManager:
    """Builds and replaces the generations of one space.

    The thread that writes the space calls `configure` and `schedule_work`; searches read `generation` at any time.
    """

    def __init__(self, space: Space, slots: SlotSource, context: BuildContext) -> None:
        self._space = space
        self._slots = slots
        self._build_context = context
        self._kind: AnnKind | None = None
        self._build: Build | None = None
        self._lock = threading.Lock()
        self._modified: tuple[Generation | None, int, Numbers] = (None, 0, np.empty(0, np.int64))
        self._rest_until = 0.0
        self._progress = ""
        self._failure = ""
        self._failures = 0
        self.generation: Generation | None = None

    def configure(self, config: IndexConfig) -> None:
        """Index the space as `config` says; the current generation answers until the new one is built."""
        kind = None if isinstance(config.kind, Exact) else config.kind
        with self._lock:  # otherwise a build that has just finished could install its index after this
            if kind != self._kind:
                self._kind, self._failure, self._failures, self._progress = kind, "", 0, ""
            if kind is None:
                self.generation = None

    def schedule_work(self, count: int) -> None:
        """Start the background work that is due for the space, which holds `count` vectors."""
        with self._lock:
            if self._build is None and self._due(count):
                self._build = self._run()
                self._build_context.scheduler.start(self._build)

    def close(self) -> None:
        """Stop building."""
        with self._lock:
            build, self._build = self._build, None
            self._kind = None
        if build is not None:
            self._build_context.scheduler.stop(build)

    def export(self, slots: Numbers) -> AnnExport | None:
        """Return the current index and which of `slots` are unmodified since it was built; None if there is none."""
        generation = self.generation
        if generation is None:
            return None
        current = slots[~self._slots.modifications.modified_after(slots, generation.sequence_number)]
        return AnnExport(generation.kind, current, generation.index.save)

    def load(self, file: BinaryIO, kind: AnnKind, current: Numbers) -> None:
        """Load an index of `kind` that was saved with the slots `current`; call it before any search.

        Raises:
            ValueError: the file holds no index.
        """
        index = self._build_context.factory.load(file)
        self._slots.modifications.reset(current)
        self.generation = Generation(index, kind, 1, RecallRecord())

    def modified_since(self, generation: Generation, selection: Selection) -> Selection | None:
        """Return the part of `selection` that was modified after `generation`; None if there is none."""
        current = self._slots.modifications.sequence_number
        if current == generation.sequence_number:
            return None
        known, sequence_number, slots = self._modified
        if known is not generation or sequence_number != current:
            slots = self._slots.modifications.slots_after(generation.sequence_number)
            self._modified = (generation, current, slots)
        chosen = slots[selection.has(slots)]
        return Selection.of(chosen, selection.extent) if len(chosen) else None

    def status(self, count: int) -> tuple[State, str]:
        """Return the state of the index, and a note on the reason, for a space that holds `count` vectors."""
        generation, kind = self.generation, self._kind
        if generation and generation.recall.degraded:
            return State.DEGRADED, generation.recall.note
        if self._failure:
            return State.FAILED, self._failure
        if kind is None or not count or (generation and generation.kind == kind):
            return State.READY, ""
        least = self._build_context.factory.min_vectors(kind)
        if count < least:
            return State.WAITING, f"it takes {least:,} vectors, and there are {count:,}: answers are exact until then"
        answering = f"the {generation.index.engine} index from before" if generation else "the exact one"
        return State.BUILDING, f"{self._progress or 'it is about to be built'}; {answering} answers"

    def _due(self, count: int) -> bool:
        kind, generation = self._kind, self.generation
        if kind is None or count < self._build_context.factory.min_vectors(kind):
            return False
        if generation is None or generation.kind != kind:
            return True
        modified = self._slots.modifications.sequence_number - generation.sequence_number
        size, least = generation.index.size, self._build_context.policy.min_modified
        dead = size - max(0, count - modified)
        return modified > least or dead > max(least, size * MAX_DEAD_SHARE)

    def _run(self) -> Build:
        """Build until nothing is due."""
        try:
            yield from self._build_while_due()
        except BaseException:
            self._build = None  # so that the next change starts another
            raise

    def _build_while_due(self) -> Build:
        while (kind := self._next_kind()) is not None:
            try:
                yield from self._wait_until_due(kind)
                began = time.monotonic()
                yield from self._build_generation(kind)
                self._rest_until = time.monotonic() + self._build_context.policy.rest_factor * (
                    time.monotonic() - began
                )
                self._failure, self._failures = "", 0
            except _SupersededError:
                continue
            except Exception as error:  # after any failure the last good index goes on answering
                log.exception("the index of %s cannot be built", self._space.name)
                self._failure = f"it cannot be built ({_summarize(error)}); the last good one answers"
                yield from self._wait(kind)

    def _next_kind(self) -> AnnKind | None:
        """Return the kind to build now; None ends the work."""
        with self._lock:
            if self._due(len(self._slots.used())):
                return self._kind
            self._build = None
            return None

    def _wait_until_due(self, kind: AnnKind) -> Build:
        """Wait until the refresh policy allows another build."""
        while self._kind is kind and self._resting(kind):
            yield _POLL_SECONDS

    def _resting(self, kind: AnnKind) -> bool:
        generation, policy = self.generation, self._build_context.policy
        if generation is None or generation.kind != kind or time.monotonic() >= self._rest_until:
            return False
        modified = self._slots.modifications.sequence_number - generation.sequence_number
        return modified <= max(policy.min_modified, policy.max_modified_share * generation.index.size)

    def _wait(self, kind: AnnKind) -> Build:
        """Wait for the next attempt after a failure, or for another config."""
        self._failures += 1
        seconds = Backoff(self._build_context.policy.retry_seconds, MAX_RETRY_SECONDS).pause(self._failures)
        until = time.monotonic() + seconds
        while self._kind is kind and time.monotonic() < until:
            yield min(_POLL_SECONDS, seconds)

    def _build_generation(self, kind: AnnKind) -> Build:
        """Build and install a generation of `kind` with the current slots; give up if the config changes."""
        previous = self.generation
        if previous and previous.kind != kind and (tuned := previous.index.with_search_params(kind)):
            self._install(Generation(tuned, kind, previous.sequence_number, RecallRecord()))
            return
        builder, sequence_number = self._extend_builder(previous, kind) or (yield from self._start_builder(kind))
        for _ in range(MAX_CATCH_UP_ROUNDS):
            current, slots = self._slots.modifications.sequence_number, self._slots.used()
            yield from self._fill(
                builder, np.sort(slots[self._slots.modifications.modified_after(slots, sequence_number)]), kind
            )
            sequence_number = current
            if self._slots.modifications.sequence_number - current <= self._build_context.policy.min_modified:
                break
        recall = previous.recall if previous and previous.kind == kind else RecallRecord()
        self._install(Generation(builder.finish(), kind, sequence_number, recall))

    def _extend_builder(self, previous: Generation | None, kind: AnnKind) -> tuple[AnnBuilder, int] | None:
        """Return a builder that extends `previous`, and its sequence number; None if a rebuild is needed."""
        if previous is None or previous.kind != kind:
            return None
        slots = self._slots.used()
        later = self._slots.modifications.modified_after(slots, previous.sequence_number)
        current = np.zeros(int(slots.max(initial=-1)) + 1, np.bool_)
        current[slots[~later]] = True
        builder = previous.index.extend(current, int(np.count_nonzero(later)))
        return None if builder is None else (builder, previous.sequence_number)

    def _start_builder(self, kind: AnnKind) -> Generator[float, None, tuple[AnnBuilder, int]]:
        slots = self._slots.used()

        def sampler(count: int) -> Matrix:
            return self._slots.vectors(np.random.default_rng().permutation(slots)[:count])

        self._progress = "training on a sample"
        return (yield from self._build_context.factory.new_builder(self._space, kind, len(slots), sampler)), 0

    def _fill(self, builder: AnnBuilder, slots: Numbers, kind: AnnKind) -> Build:
        for begin in range(0, len(slots), ADD_BATCH_SIZE):
            if self._kind is not kind:
                raise _SupersededError
            part = slots[begin : begin + ADD_BATCH_SIZE]
            builder.add(part, self._slots.vectors(part))
            self._progress = f"{begin + len(part):,} of {len(slots):,} vectors are in it"
            yield 0.0

    def _install(self, generation: Generation) -> None:
        """Let `generation` answer from now on, unless the config has changed."""
        with self._lock:
            if self._kind is generation.kind:
                self.generation = generation


class _SupersededError(Exception):
    """The config changed while an index was being built."""


def _summarize(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
