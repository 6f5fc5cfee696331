"""One space of one collection: which row's vector lies in which slot of its `VectorIndex`."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from services.common.vectors import Matrix
from services.search.feed import Space
from services.search.index import Mask, Numbers, Ranking, Selection, VectorIndex
from services.search.portable_index import SpaceContent

NOWHERE = -1
Places = NDArray[np.int32]


class SpaceIndex:
    """Vectors by row of the collection. Rows without a vector in this space take no memory for one.

    One writer at a time; readers at any time, for rows that are not written or released meanwhile. Tables that grow are
    replaced, so a reader goes on with the one it took.
    """

    def __init__(self, space: Space, index: VectorIndex) -> None:
        self.space = space
        self.engine = index.engine
        self._index = index
        self._slot_of_row: Places = np.empty(0, np.int32)
        self._row_of_slot: Places = np.empty(0, np.int32)
        self._free: list[int] = []
        self._extent = 0

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory taken by vectors and tables."""
        return self._index.memory_bytes + self._slot_of_row.nbytes + self._row_of_slot.nbytes

    def write(self, rows: Numbers, vectors: Matrix) -> None:
        """Store row i of `vectors` as that of rows[i], which has none yet."""
        if not len(rows):
            return
        extent, slots = self._extent, self._taken(len(rows))
        try:
            self._index.write(slots, vectors)
        except BaseException:  # they are as if never taken, lest room be sought for them by the next
            self._extent = extent
            self._free.extend(slots[slots < extent].tolist())
            raise
        self._map(rows, slots)

    def place(self, rows: Numbers, slots: Numbers, vectors: Matrix) -> None:
        """Store row i of `vectors` as that of rows[i], in slots[i]: ascending, above all there are; others are free."""
        if not len(rows):
            return
        left_out = np.setdiff1d(np.arange(self._extent, int(slots[-1])), slots, assume_unique=True)
        self._free.extend(left_out.tolist())
        self._extent = int(slots[-1]) + 1
        self._index.write(slots, vectors)
        self._map(rows, slots)

    def content(self, rows: Numbers) -> SpaceContent:
        """Return the vectors of `rows`, those that have one; items are numbered by their place in `rows`."""
        items = np.flatnonzero(self.holds(rows))
        slots = self._slot_of_row[rows[items]].astype(np.int64)
        order = np.argsort(slots)
        return SpaceContent(self.space, items[order], slots[order], self._index.vectors)

    def release(self, rows: Numbers) -> None:
        """Give the vectors of `rows` up; rows without one are passed over."""
        known = rows[rows < len(self._slot_of_row)]
        slots = self._slot_of_row[known]
        self._slot_of_row[known] = NOWHERE
        self._free.extend(slots[slots != NOWHERE].tolist())

    def holds(self, rows: Numbers) -> Mask:
        """Return for each of `rows` whether it has a vector."""
        table = self._slot_of_row
        held: Mask = np.zeros(len(rows), np.bool_)
        known = rows < len(table)
        held[known] = table[rows[known]] != NOWHERE
        return held

    def selection(self, rows: Numbers) -> Selection:
        """Return a selection of those of `rows` that have a vector."""
        table, extent = self._slot_of_row, self._extent
        slots = table[rows[rows < len(table)]]
        return Selection.of(slots[slots != NOWHERE].astype(np.int64), extent)

    def search(self, queries: Matrix, top_k: int, selection: Selection) -> Sequence[Ranking]:
        """Return rows as `VectorIndex.search` returns slots."""
        return [self._by_row(ranking) for ranking in self._index.search(queries, top_k, selection)]

    def rank(self, query: Matrix, selection: Selection) -> Ranking:
        """Return all rows of `selection` ranked for one query, shape (dimensions,), every one compared."""
        return self._by_row(self._index.rank(query, selection.count, selection.slots()))

    def _by_row(self, ranking: Ranking) -> Ranking:
        return replace(ranking, slots=self._row_of_slot[ranking.slots].astype(np.int64))

    def _map(self, rows: Numbers, slots: Numbers) -> None:
        self._row_of_slot = _grown(self._row_of_slot, self._extent)
        self._row_of_slot[slots] = rows
        self._slot_of_row = _grown(self._slot_of_row, int(rows.max()) + 1)
        self._slot_of_row[rows] = slots

    def _taken(self, count: int) -> Numbers:
        reused = [self._free.pop() for _ in range(min(count, len(self._free)))]
        fresh = range(self._extent, self._extent + count - len(reused))
        self._extent = fresh.stop
        return np.array([*reused, *fresh], np.int64)


def _grown(table: Places, length: int) -> Places:
    if length <= len(table):
        return table
    grown: Places = np.full(max(length, len(table) * 5 // 4), NOWHERE, np.int32)
    grown[: len(table)] = table
    return grown
