"""The rows of a segment that a search compares, and copies of their codes for filters that searches come back to.

A scan that skips rows still asks of each whether it may, which costs about what scoring it does. Of codes that lie side
by side it reads what it compares and nothing else.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from services.search.core.vector_index import Bits, Mask, Numbers, Selection

COPIED_AT_ONCE = 0.15  # of the rows: to copy so few codes and scan them costs less than to skip the others
COPIED_SHARE = 0.6  # of the rows: of more there is little that a scan need not read
COPIED_AT = 4  # the scan that copies others: a copy costs about what so many scans save
KEPT_FILTERS = 64
ROW_BYTES = 4


@dataclass(frozen=True, slots=True)
class RowFilter:
    """The `count` rows of a segment that `selection` chooses of its first `limit`; `bits` tell which, None all."""

    selection: Selection
    count: int
    limit: int
    bits: Bits | None = None

    @classmethod
    def of(cls, selection: Selection, begin: int, rows: int) -> Self:
        """Return what `selection`, which lists no slots, chooses of `rows` rows from slot `begin` on."""
        limit = min(rows, selection.extent - begin)
        if selection.bits is None:
            return cls(selection, limit, limit)
        bits = selection.bits[begin // 8 : (begin + limit + 7) // 8]
        return cls(selection, int(np.bitwise_count(bits).sum()), limit, bits)

    def among(self, rows: Numbers) -> Numbers:
        """Return those of `rows` that are chosen."""
        rows = rows[rows < self.limit]
        if self.bits is None or not len(rows):
            return rows
        held: Mask = (self.bits[rows >> 3] >> (rows & 7).astype(np.uint8) & 1).astype(np.bool_)
        return rows[held]

    def rows(self) -> Numbers:
        """Return the rows, ascending."""
        if self.bits is None:
            return np.arange(self.limit)
        return np.flatnonzero(np.unpackbits(self.bits, count=self.limit, bitorder="little"))


@dataclass(slots=True, eq=False)
class CodeCopy:
    """Codes of the rows of one selection, side by side in `index`, once there have been enough `scans` for it.

    Number i of them is the code of rows[i].
    """

    selection: Selection
    scans: int = 0
    rows: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    index: Any = None


class FilterCache:
    """Copies of codes for the latest filters, kept while they take up to `room_bytes` a row of the segment.

    Nobody writes the rows of a selection while it is searched, so a copy is right until the next write, whose caller
    clears the cache.
    """

    def __init__(self, code_bytes: int, room_bytes: float) -> None:
        self._row_bytes, self._room_bytes = code_bytes + ROW_BYTES, room_bytes
        self._latest: dict[int, CodeCopy] = {}
        self._lock = threading.Lock()

    @property
    def memory_bytes(self) -> int:
        """Bytes of the copies."""
        with self._lock:
            return self._row_bytes * self._copied_rows()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._latest.clear()

    def copy(self, chosen: RowFilter, segment_rows: int, make: Callable[[Numbers], Any]) -> CodeCopy | None:
        """Return a copy of the codes of `chosen`, which `make` makes of rows; None where to skip rows costs less."""
        with self._lock:
            found = self._latest.pop(id(chosen.selection), None)
            if found is None or found.selection is not chosen.selection:
                found = CodeCopy(chosen.selection)
            self._latest[id(chosen.selection)] = found
            found.scans += 1
            if len(self._latest) > KEPT_FILTERS:
                self._latest.pop(next(iter(self._latest)))
        if found.index is not None:
            return found
        share, room = chosen.count / chosen.limit, int(self._room_bytes * segment_rows / self._row_bytes)
        again = share <= COPIED_SHARE and found.scans >= COPIED_AT and chosen.count <= room
        if share > COPIED_AT_ONCE and not again:
            return None
        rows = chosen.rows()
        found.rows, found.index = rows.astype(np.int32), make(rows)
        with self._lock:
            while self._copied_rows() > room:
                self._latest.pop(next(iter(self._latest)))
        return found

    def _copied_rows(self) -> int:
        return sum(len(each.rows) for each in self._latest.values())
