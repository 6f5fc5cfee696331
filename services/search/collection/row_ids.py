"""Which row of a collection holds which item."""

import sys
from collections.abc import Iterable

from services.search.core.vector_index import Numbers

_ENTRY_BYTES = 80  # in the list and the dictionary, and the number


class RowIds:
    """Ids by row, and the row of an id that holds it now. One writer; ids by row may be read meanwhile."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._rows: dict[str, int] = {}
        self._free: list[int] = []
        self.memory_bytes = 0

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, row: int) -> str:
        return self._ids[row]

    def of(self, rows: Numbers) -> list[str]:
        """Return the ids of `rows`."""
        return list(map(self._ids.__getitem__, rows.tolist()))

    def allocate(self, ids: Iterable[str]) -> list[int]:
        """Return a row of its own for each of `ids`, a freed one where there is one; `row_of` does not know it yet."""
        return [self._allocate(item_id) for item_id in ids]

    def release(self, rows: Numbers) -> None:
        """Let `rows` be taken again."""
        for row in rows.tolist():
            self.memory_bytes -= sys.getsizeof(self._ids[row]) + _ENTRY_BYTES
            self._ids[row] = ""
            self._free.append(row)

    def row_of(self, item_id: str) -> int | None:
        """Return the row that holds the item now; None where there is none."""
        return self._rows.get(item_id)

    def assign(self, item_id: str, row: int | None) -> int | None:
        """Say which row holds the item from now on, None for none; return the row that did."""
        before = self._rows.pop(item_id, None)
        if row is not None:
            self._rows[item_id] = row
        return before

    def _allocate(self, item_id: str) -> int:
        self.memory_bytes += sys.getsizeof(item_id) + _ENTRY_BYTES
        if self._free:
            row = self._free.pop()
            self._ids[row] = item_id
            return row
        self._ids.append(item_id)
        return len(self._ids) - 1
