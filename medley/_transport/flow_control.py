"""Flow control of an ingest: bounds on the items sent and not yet answered."""

import asyncio
import threading
from collections import deque

from medley.errors import Error

MAX_ITEMS = 1024
MAX_BYTES = 64 * 2**20


class FlowControl:
    """Counts items in flight, in the order sent. An item larger than `max_bytes` is sent alone."""

    def __init__(self, max_items: int = MAX_ITEMS, max_bytes: int = MAX_BYTES) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self.closed = False
        self.failure: Exception | None = None

    def ready(self, size: int) -> bool:
        """Whether an item of `size` bytes need not wait: it fits, or the window is closed."""
        fits = len(self._sizes) < self._max_items and self._bytes + size <= self._max_bytes
        return self.closed or not self._sizes or fits

    def acquire(self, size: int) -> bool:
        """Count an item as sent, unless the window is closed; return whether it may be sent."""
        if not self.closed:
            self._sizes.append(size)
            self._bytes += size
        return not self.closed

    def release(self) -> None:
        """Count the oldest item as answered; surplus answers are ignored."""
        if self._sizes:
            self._bytes -= self._sizes.popleft()

    def check(self) -> None:
        """Raise the exception of the items' source, or an error if items were left unanswered."""
        if self.failure is not None:
            raise self.failure
        if self._sizes:
            raise Error(f"the server ended the ingest with {len(self._sizes)} items unanswered")


class Window:
    """A `FlowControl` between the thread that sends and the one that reads answers."""

    def __init__(self, flow: FlowControl | None = None) -> None:
        self.flow = flow or FlowControl()
        self._changed = threading.Condition()

    def acquire(self, size: int) -> bool:
        """Wait until an item of `size` bytes may be sent; return False once the window is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.flow.ready(size))
            return self.flow.acquire(size)

    def release(self) -> None:
        """Count the oldest item as answered."""
        with self._changed:
            self.flow.release()
            self._changed.notify_all()

    def close(self) -> None:
        """Admit no more items."""
        with self._changed:
            self.flow.closed = True
            self._changed.notify_all()


class AsyncWindow:
    """A `FlowControl` between the task that sends and the one that reads answers."""

    def __init__(self, flow: FlowControl | None = None) -> None:
        self.flow = flow or FlowControl()
        self._changed = asyncio.Event()

    async def acquire(self, size: int) -> bool:
        """Wait until an item of `size` bytes may be sent; return False once the window is closed."""
        while not self.flow.ready(size):
            self._changed.clear()
            await self._changed.wait()
        return self.flow.acquire(size)

    def release(self) -> None:
        """Count the oldest item as answered."""
        self.flow.release()
        self._changed.set()

    def close(self) -> None:
        """Admit no more items."""
        self.flow.closed = True
        self._changed.set()
