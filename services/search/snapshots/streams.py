"""One long file in several parts: written to and read from as if it were one."""

import io
from collections.abc import Callable, Iterator
from typing import Any

from services.search.snapshots import format


class PartsWriter(io.RawIOBase):
    """A file that hands over what is written to it part by part."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        super().__init__()
        self._take = take
        self._waiting = bytearray()

    def writable(self) -> bool:
        """Return that it is."""
        return True

    def write(self, content: Any) -> int:
        """Take bytes, or what lies in memory as such."""
        self._waiting += content
        while len(self._waiting) >= format.PART_BYTES:
            self._take(bytes(self._waiting[: format.PART_BYTES]))
            del self._waiting[: format.PART_BYTES]
        return len(content)

    def finish(self) -> None:
        """Hand over the rest."""
        if self._waiting:
            self._take(bytes(self._waiting))
            self._waiting.clear()


class PartsReader(io.RawIOBase):
    """A file whose bytes come in parts."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        super().__init__()
        self._parts = parts
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as the part at hand goes; 0 at the end."""
        while not self._rest:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._rest = memoryview(part)
        taken = self._rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)
