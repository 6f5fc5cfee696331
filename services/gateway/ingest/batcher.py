"""Items on their way, gathered into batches."""

import asyncio
from collections import deque
from dataclasses import dataclass

from services.common.errors import ServiceError
from services.gateway.ingest.validation import ValidatedItem


@dataclass(frozen=True, slots=True)
class Entry:
    """The item numbered `sequence` in its stream: a draft with its picture's bytes, or why it was refused.

    `size` is how many bytes it holds.
    """

    sequence: int
    id: str
    draft: ValidatedItem | ServiceError
    picture: bytes | None
    size: int


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """A batch has at most so many items and bytes (one larger item goes alone), and waits no longer for more."""

    items: int
    bytes: int
    seconds: float


class Batches:
    """Gathers entries, in order, into batches in which no id comes twice."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._waiting: deque[Entry] = deque()
        self._bytes = 0
        self._closed = False
        self._some = asyncio.Event()
        self._enough = asyncio.Event()

    def put(self, entry: Entry) -> None:
        """Add the next entry."""
        self._waiting.append(entry)
        self._bytes += entry.size
        self._signal()

    def close(self) -> None:
        """Say that no entry follows."""
        self._closed = True
        self._signal()

    async def wait(self) -> bool:
        """Wait until a batch is full or has waited long enough; return False when there will be none."""
        await self._some.wait()
        if self._waiting and not self._enough.is_set():
            try:
                async with asyncio.timeout(self._limits.seconds):
                    await self._enough.wait()
            except TimeoutError:
                pass
        return bool(self._waiting)

    def take(self) -> list[Entry]:
        """Return the next batch of what waits now."""
        batch: list[Entry] = []
        ids: set[str] = set()
        size = 0
        while self._waiting and len(batch) < self._limits.items:
            entry = self._waiting[0]
            if batch and (size + entry.size > self._limits.bytes or entry.id in ids):
                break
            batch.append(self._waiting.popleft())
            ids.add(entry.id)
            size += entry.size
        self._bytes -= size
        self._signal()
        return batch

    def _signal(self) -> None:
        full = len(self._waiting) >= self._limits.items or self._bytes >= self._limits.bytes
        _set(self._some, bool(self._waiting) or self._closed)
        _set(self._enough, full or self._closed)


def _set(event: asyncio.Event, value: bool) -> None:
    if value:
        event.set()
    else:
        event.clear()
