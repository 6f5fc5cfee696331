"""Items gathered into messages: what is at hand goes together, and nothing waits for company."""

from collections import deque

from medley.v1 import gateway_service_pb2 as pb

MAX_ITEMS = 64
MAX_BYTES = 2**20


class RequestChunker:
    """Items in the order drawn, taken out some at a time. An item over the bound in bytes goes alone."""

    def __init__(self, max_items: int = MAX_ITEMS, max_bytes: int = MAX_BYTES) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._items: deque[tuple[pb.IngestItem, int]] = deque()
        self._ended = False

    def ready(self) -> bool:
        """Whether there is an item to take, or never will be."""
        return bool(self._items) or self._ended

    @property
    def full(self) -> bool:
        """Whether there are as many items as go together."""
        return len(self._items) >= self._max_items

    def put(self, item: pb.IngestItem, size: int) -> None:
        """Add the next item, of `size` bytes."""
        self._items.append((item, size))

    def end(self) -> None:
        """Say that no item follows."""
        self._ended = True

    def take(self) -> list[pb.IngestItem]:
        """Return the next items; none where there are none."""
        lot: list[pb.IngestItem] = []
        room = self._max_bytes
        while self._items and len(lot) < self._max_items and (not lot or self._items[0][1] <= room):
            item, size = self._items.popleft()
            lot.append(item)
            room -= size
        return lot
