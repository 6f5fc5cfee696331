"""Queue of the inputs to ingest, in order, which can be resumed: items in flight are sent again."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from medley.importer.pending_item import PendingItem
from medley.importer.report import Failure, Report
from medley.inputs import BadInputError, Input, InputError
from medley.values import NewItem

BATCH_INPUTS = 128

FindUnchanged = Callable[[list[PendingItem]], set[str]]
"""Returns the ids of those items that are stored unchanged."""

PrepareItem = Callable[[PendingItem], NewItem]
"""Returns the item to send, with its media read or uploaded; raises BadInputError if that is impossible."""


class PendingItems:
    """Reads inputs, reports those that are unchanged or invalid, and streams the others.

    One stream is active at a time, possibly on another thread than the one that calls the methods; `stream` ends the
    previous one. Exceptions of `find_unchanged`, `prepare` and the inputs other than BadInputError pass through the
    stream, and the next stream continues where it stopped.
    """

    def __init__(
        self, inputs: Iterable[Input], find_unchanged: FindUnchanged, prepare: PrepareItem, report: Report
    ) -> None:
        self._inputs = iter(inputs)
        self._find_unchanged = find_unchanged
        self._prepare = prepare
        self._report = report
        self._ids: set[str] = set()
        self._input_error: InputError | None = None
        self._unchecked: list[PendingItem] = []
        self._ready: deque[PendingItem] = deque()
        self._in_flight: deque[PendingItem] = deque()
        self._stream = 0
        self._lock = threading.Lock()

    def stream(self) -> Iterator[NewItem]:
        """Return the items to send, those in flight first."""
        with self._lock:
            self._stream += 1
            self._ready.extendleft(reversed(self._in_flight))
            self._in_flight.clear()
            return self._items(self._stream)

    def pop_oldest(self) -> PendingItem:
        """Remove and return the oldest item in flight."""
        with self._lock:
            return self._in_flight.popleft()

    def put_back(self, pending: PendingItem) -> None:
        """Return an item that has to be sent again to the items in flight, as the oldest."""
        with self._lock:
            self._in_flight.appendleft(pending)

    def _items(self, stream: int) -> Iterator[NewItem]:
        while (item := self._next(stream)) is not None:
            yield item

    def _next(self, stream: int) -> NewItem | None:
        with self._lock:
            while stream == self._stream and (self._ready or self._fill_ready()):
                if self._ready and (item := self._send_next()) is not None:
                    return item
        return None

    def _send_next(self) -> NewItem | None:
        """Move the next ready item to those in flight and return it; None if it cannot be sent."""
        pending = self._ready[0]
        try:
            item = self._prepare(pending)
        except BadInputError as error:
            self._report.fail(Failure(pending.name, pending.id, "", str(error)))
            item = None
        self._ready.popleft()
        if item is not None:
            self._in_flight.append(pending)
        return item

    def _fill_ready(self) -> bool:
        """Add items to the ready ones; return False at the end of the inputs."""
        if not self._unchecked and not self._read_batch():
            return False
        unchanged = self._find_unchanged(self._unchecked)
        for pending in self._unchecked:
            if pending.id in unchanged:
                self._report.count_unchanged()
            else:
                self._ready.append(pending)
        self._unchecked = []
        return True

    def _read_batch(self) -> bool:
        """Read some inputs; return False at their end. An InputError is raised after the inputs before it."""
        if self._input_error is not None:
            raise self._input_error
        any_read = False
        try:
            for source in islice(self._inputs, BATCH_INPUTS):
                any_read = True
                self._add(source)
        except InputError as error:
            self._input_error = error
            return True
        return any_read

    def _add(self, source: Input) -> None:
        item_id = source.item.id if source.item else ""
        try:
            self._unchecked.append(self._validate(source))
        except BadInputError as error:
            self._report.fail(Failure(source.name, item_id, "", str(error)))

    def _validate(self, source: Input) -> PendingItem:
        if source.item is None:
            raise BadInputError(source.problem)
        if source.item.id in self._ids:
            raise BadInputError(f"duplicate id {source.item.id!r}")
        self._ids.add(source.item.id)
        return PendingItem.of(source.name, source.item)
