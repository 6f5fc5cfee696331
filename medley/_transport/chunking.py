"""Items grouped into request messages: those at hand are sent together, without a batching delay."""

from collections import deque

from medley.v1 import gateway_service_pb2 as pb

MAX_ITEMS = 64
MAX_BYTES = 2**20


class RequestChunker:
    """Queue of items that is emptied in chunks. An item larger than `max_bytes` is a chunk of its own."""

    def __init__(self, max_items: int = MAX_ITEMS, max_bytes: int = MAX_BYTES) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._items: deque[tuple[pb.IngestItem, int]] = deque()
        self._ended = False

    def ready(self) -> bool:
        """Whether `take` need not wait: there are items, or no more will come."""
        return bool(self._items) or self._ended

    @property
    def full(self) -> bool:
        """Whether the queued items fill a chunk."""
        return len(self._items) >= self._max_items

    def put(self, item: pb.IngestItem, size: int) -> None:
        """Add the next item, of `size` bytes."""
        self._items.append((item, size))

    def end(self) -> None:
        """Mark the end of the items."""
        self._ended = True

    def take(self) -> list[pb.IngestItem]:
        """Remove and return the next chunk, which is empty if no items are queued."""
        chunk: list[pb.IngestItem] = []
        remaining = self._max_bytes
        while self._items and len(chunk) < self._max_items and (not chunk or self._items[0][1] <= remaining):
            item, size = self._items.popleft()
            chunk.append(item)
            remaining -= size
        return chunk
