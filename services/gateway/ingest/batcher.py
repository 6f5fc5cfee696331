"""Gathers the items of an ingest into batches."""

import asyncio
from collections import deque
from dataclasses import dataclass

from services.common.errors import ServiceError
from services.gateway.ingest.validation import ValidatedItem


@dataclass(frozen=True, slots=True)
class PendingItem:
    """An item of an ingest that is not yet committed.

    `sequence` is its number in the stream, from 0; `item` is an error where it was refused; `image` holds the bytes to
    embed; `size` is what it takes in memory, in bytes.
    """

    sequence: int
    id: str
    item: ValidatedItem | ServiceError
    image: bytes | None
    size: int


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Most items and bytes of a batch (an item over `bytes` goes alone), and how long a batch waits to fill up."""

    items: int
    bytes: int
    seconds: float


class ItemBatcher:
    """Gathers items, in order, into batches of unique ids."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._waiting: deque[PendingItem] = deque()
        self._bytes = 0
        self._closed = False
        self._not_empty = asyncio.Event()
        self._full = asyncio.Event()

    def put(self, item: PendingItem) -> None:
        """Add the next item."""
        self._waiting.append(item)
        self._bytes += item.size
        self._signal()

    def close(self) -> None:
        """Mark the end: no item follows."""
        self._closed = True
        self._signal()

    async def wait(self) -> bool:
        """Wait until the next batch is full or its waiting time is over; return False after the last one."""
        await self._not_empty.wait()
        if self._waiting and not self._full.is_set():
            try:
                async with asyncio.timeout(self._limits.seconds):
                    await self._full.wait()
            except TimeoutError:
                pass
        return bool(self._waiting)

    def take(self) -> list[PendingItem]:
        """Return the next batch of the items that wait now."""
        batch: list[PendingItem] = []
        ids: set[str] = set()
        size = 0
        while self._waiting and len(batch) < self._limits.items:
            item = self._waiting[0]
            if batch and (size + item.size > self._limits.bytes or item.id in ids):
                break
            batch.append(self._waiting.popleft())
            ids.add(item.id)
            size += item.size
        self._bytes -= size
        self._signal()
        return batch

    def _signal(self) -> None:
        full = len(self._waiting) >= self._limits.items or self._bytes >= self._limits.bytes
        _set(self._not_empty, bool(self._waiting) or self._closed)
        _set(self._full, full or self._closed)


def _set(event: asyncio.Event, value: bool) -> None:
    if value:
        event.set()
    else:
        event.clear()
