"""How far an ingest looks ahead: bounds on the items sent and not yet answered."""

import asyncio
import threading
from collections import deque

from medley.errors import Error

MAX_ITEMS = 1024
MAX_BYTES = 64 * 2**20


class FlowControl:
    """Counts what is under way, in the order sent. An item over the bound in bytes goes alone."""

    def __init__(self, max_items: int = MAX_ITEMS, max_bytes: int = MAX_BYTES) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self.closed = False
        self.failure: Exception | None = None

    def ready(self, size: int) -> bool:
        """Whether an item of `size` bytes need not wait: there is room, or no sense in waiting any more."""
        fits = len(self._sizes) < self._max_items and self._bytes + size <= self._max_bytes
        return self.closed or not self._sizes or fits

    def take(self, size: int) -> bool:
        """Count an item as sent, unless the room is closed; return whether it may be sent."""
        if not self.closed:
            self._sizes.append(size)
            self._bytes += size
        return not self.closed

    def give(self) -> None:
        """Count the oldest item as answered; an answer too many counts for nothing."""
        if self._sizes:
            self._bytes -= self._sizes.popleft()

    def check(self) -> None:
        """Raise what the source of the items raised, or an error where items were left unanswered."""
        if self.failure is not None:
            raise self.failure
        if self._sizes:
            raise Error(f"the server ended the ingest with {len(self._sizes)} items unanswered")


class Window:
    """A `FlowControl` between the thread that sends and the one that reads answers."""

    def __init__(self, room: FlowControl | None = None) -> None:
        self.room = room or FlowControl()
        self._changed = threading.Condition()

    def enter(self, size: int) -> bool:
        """Wait for room for an item of `size` bytes; False once the window is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.room.ready(size))
            return self.room.take(size)

    def leave(self) -> None:
        """Count the oldest item as answered."""
        with self._changed:
            self.room.give()
            self._changed.notify_all()

    def close(self) -> None:
        """Let nothing more in."""
        with self._changed:
            self.room.closed = True
            self._changed.notify_all()


class AsyncWindow:
    """A `FlowControl` between the task that sends and the one that reads answers."""

    def __init__(self, room: FlowControl | None = None) -> None:
        self.room = room or FlowControl()
        self._changed = asyncio.Event()

    async def enter(self, size: int) -> bool:
        """Wait for room for an item of `size` bytes; False once the window is closed."""
        while not self.room.ready(size):
            self._changed.clear()
            await self._changed.wait()
        return self.room.take(size)

    def leave(self) -> None:
        """Count the oldest item as answered."""
        self.room.give()
        self._changed.set()

    def close(self) -> None:
        """Let nothing more in."""
        self.room.closed = True
        self._changed.set()
