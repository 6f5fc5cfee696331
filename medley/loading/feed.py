"""The inputs yet to be sent, in order, with those under way: what an ingest draws from and can go back to."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from medley.inputs import BadInputError, Input, InputError
from medley.loading.draft import Draft
from medley.loading.report import Failure, Report
from medley.values import NewItem

BATCH_INPUTS = 128

Unchanged = Callable[[list[Draft]], set[str]]
"""Tells the ids of drafts that are stored as they are."""

Packed = Callable[[Draft], NewItem]
"""Returns the item of a draft with its media ready to go; raises BadInputError where that cannot be."""


class PendingItems:
    """Draws inputs, settles those that need not or cannot be sent, and hands out the others.

    One stream draws at a time, maybe on another thread than the one that calls the methods; `stream` ends the one
    before. Whatever `unchanged`, `packed` or the inputs raise but BadInputError passes through the stream with nothing
    lost: the next stream takes up there.
    """

    def __init__(self, inputs: Iterable[Input], unchanged: Unchanged, packed: Packed, report: Report) -> None:
        self._inputs = iter(inputs)
        self._unchanged = unchanged
        self._packed = packed
        self._report = report
        self._ids: set[str] = set()
        self._broken: InputError | None = None
        self._unchecked: list[Draft] = []
        self._ready: deque[Draft] = deque()
        self._under_way: deque[Draft] = deque()
        self._stream = 0
        self._lock = threading.Lock()

    def stream(self) -> Iterator[NewItem]:
        """Return the items to send, those under way first."""
        with self._lock:
            self._stream += 1
            self._ready.extendleft(reversed(self._under_way))
            self._under_way.clear()
            return self._items(self._stream)

    def answered(self) -> Draft:
        """Take the oldest draft under way."""
        with self._lock:
            return self._under_way.popleft()

    def put_back(self, draft: Draft) -> None:
        """Put a draft whose answer does not settle it back under way, as the oldest."""
        with self._lock:
            self._under_way.appendleft(draft)

    def _items(self, stream: int) -> Iterator[NewItem]:
        while (item := self._next(stream)) is not None:
            yield item

    def _next(self, stream: int) -> NewItem | None:
        with self._lock:
            while stream == self._stream and (self._ready or self._check_more()):
                if self._ready and (item := self._take()) is not None:
                    return item
        return None

    def _take(self) -> NewItem | None:
        """Move the next ready draft under way and return its item; None where it cannot go."""
        draft = self._ready[0]
        try:
            item = self._packed(draft)
        except BadInputError as error:
            self._report.fail(Failure(draft.name, draft.id, "", str(error)))
            item = None
        self._ready.popleft()
        if item is not None:
            self._under_way.append(draft)
        return item

    def _check_more(self) -> bool:
        """Make some more drafts ready; False at the end of the inputs."""
        if not self._unchecked and not self._draw():
            return False
        unchanged = self._unchanged(self._unchecked)
        for draft in self._unchecked:
            if draft.id in unchanged:
                self._report.count_unchanged()
            else:
                self._ready.append(draft)
        self._unchecked = []
        return True

    def _draw(self) -> bool:
        """Draw some more inputs; False at their end. Those that an error cuts short are drawn first."""
        if self._broken is not None:
            raise self._broken
        drawn = False
        try:
            for given in islice(self._inputs, BATCH_INPUTS):
                drawn = True
                self._draft(given)
        except InputError as error:
            self._broken = error
            return True
        return drawn

    def _draft(self, given: Input) -> None:
        item_id = given.item.id if given.item else ""
        try:
            self._unchecked.append(self._checked(given))
        except BadInputError as error:
            self._report.fail(Failure(given.name, item_id, "", str(error)))

    def _checked(self, given: Input) -> Draft:
        if given.item is None:
            raise BadInputError(given.problem)
        if given.item.id in self._ids:
            raise BadInputError(f"the id {given.item.id!r} came before")
        self._ids.add(given.item.id)
        return Draft.of(given.name, given.item)
