"""A collection in the memory of this process: ids, metadata and the vectors of its spaces, version by version.

Readers never wait for the writer, nor the writer for readers. An item that is written again gets another row; a row
never changes while anyone can see it. A version is a mask over the rows, published whole: a search pins the newest
one and sees nothing else until it is done. Rows that a version no longer shows are used again once no search has an
older one pinned.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import nsmallest

import numpy as np

from services.common.errors import SpaceNotFoundError
from services.common.filters import Filter, canonical
from services.common.vectors import Matrix
from services.common.versions import Version
from services.search.collection_index import Found, Hit, Search, SpaceState
from services.search.feed import ChangePart, Space
from services.search.index import Mask, Numbers, Ranking, Scores, Selection, VectorIndex
from services.search.metadata_columns import MetadataColumns
from services.search.row_ids import RowIds
from services.search.space_index import SpaceIndex

SELECTIONS_AT_MOST = 64


@dataclass(slots=True)
class Snapshot:
    """One version of a collection. `visible[row]` says whether the row belongs to it.

    The collection's own: `round_number` counts publications, `pins` the searches under way, and `retired` are the rows
    that the next version no longer shows. Selections made for it are kept, the last used ones.
    """

    version: Version
    round_number: int
    visible: Mask
    pins: int = 0
    retired: list[int] = field(default_factory=list)
    selections: OrderedDict[tuple[str, str], Selection] = field(default_factory=OrderedDict)


class LocalCollectionIndex:
    """`CollectionIndex` in the memory of this process."""

    def __init__(self, spaces: Sequence[Space], make_index: Callable[[Space], VectorIndex]) -> None:
        self._spaces = {space.name: SpaceIndex(space, make_index(space)) for space in spaces}
        self._ids = RowIds()
        self._metadata = MetadataColumns()
        self._pending: dict[str, int | None] = {}
        self._snapshots: Sequence[Snapshot] = []
        self._lock = threading.Lock()

    @property
    def version(self) -> Version | None:
        """The version published last; None before the first."""
        return self._snapshots[-1].version if self._snapshots else None

    def space(self, name: str) -> Space:
        """See `CollectionIndex`."""
        return self._space(name).space

    def states(self) -> Sequence[SpaceState]:
        """See `CollectionIndex`. Memory that no one space takes (ids, metadata, columns) is shared out evenly."""
        if not self._snapshots:
            return []
        shared_bytes = (self._ids.memory_bytes + self._metadata.memory_bytes) // len(self._spaces)
        with self._pinned() as snapshot:
            return [self._state(snapshot, space, shared_bytes) for space in self._by_name]

    def write(self, part: ChangePart) -> None:
        """See `CollectionIndex`."""
        self._reclaim()
        for space in part.spaces:
            self._spaces[space.name].space = space
        for item_id in part.deleted_ids:
            self._supersede(item_id, None)
        rows = np.array(self._ids.take(part.ids), np.int64)
        self._metadata.write(rows, part.metadata, self._round_number)
        for name, space_vectors in part.vectors.items():
            self._spaces[name].write(rows[space_vectors.rows], space_vectors.vectors)
        for item_id, row in zip(part.ids, rows.tolist(), strict=True):
            self._supersede(item_id, row)

    def publish(self, version: Version) -> None:
        """See `CollectionIndex`."""
        before = self._snapshots[-1].visible if self._snapshots else np.empty(0, np.bool_)
        visible = np.zeros(len(self._ids), np.bool_)
        visible[: len(before)] = before
        moved = [(self._ids.move(item_id, row), row) for item_id, row in self._pending.items()]
        retired = [old for old, _ in moved if old is not None]
        visible[np.array(retired, np.int64)] = False
        visible[np.array([new for _, new in moved if new is not None], np.int64)] = True
        snapshot = Snapshot(version, self._round_number, visible)
        self._pending = {}
        with self._lock:
            if self._snapshots:
                self._snapshots[-1].retired = retired
            self._snapshots = [*self._snapshots, snapshot]

    def abandon(self) -> None:
        """See `CollectionIndex`."""
        self._release([row for row in self._pending.values() if row is not None])
        self._pending = {}

    def search(self, search: Search, queries: Matrix) -> Sequence[Found]:
        """See `CollectionIndex`."""
        space = self._space(search.space)
        with self._pinned() as snapshot:
            if search.ids:
                selection = self._among(snapshot, search)
            else:
                selection = self._selection(snapshot, search.space, search.condition)
            if not selection.count:
                return [Found([], 0, snapshot.version)] * len(queries)
            rankings = space.search(queries, search.top_k, selection)
            return [
                Found(self._hits(ranking, search), selection.count, snapshot.version, compared=ranking.compared)
                for ranking in rankings
            ]

    def item_ids(self, space: str) -> tuple[list[str], Version]:
        """See `CollectionIndex`."""
        index = self._space(space)
        with self._pinned() as snapshot:
            rows = np.flatnonzero(snapshot.visible)
            return [self._ids[row] for row in rows[index.holds(rows)].tolist()], snapshot.version

    @property
    def _by_name(self) -> Sequence[SpaceIndex]:
        return [self._spaces[name] for name in sorted(self._spaces)]

    def _space(self, name: str) -> SpaceIndex:
        if name not in self._spaces:
            raise SpaceNotFoundError(name, sorted(self._spaces))
        return self._spaces[name]

    def _state(self, snapshot: Snapshot, index: SpaceIndex, shared_bytes: int) -> SpaceState:
        space = index.space
        count = self._selection(snapshot, space.name, None).count
        memory_bytes = index.memory_bytes + shared_bytes
        return SpaceState(space, index.engine, count, memory_bytes, snapshot.version, space.config)

    def _among(self, snapshot: Snapshot, search: Search) -> Selection:
        rows = np.intersect1d(self._rows(snapshot, search.condition), self._rows_of(snapshot, search.ids))
        return self._spaces[search.space].selection(rows)

    def _rows_of(self, snapshot: Snapshot, ids: Collection[str]) -> Numbers:
        """Return the rows that hold `ids` in `snapshot`; where a newer one has moved some, look through all."""
        known = {item_id: self._ids.row_of(item_id) for item_id in ids}
        rows = [row for row in known.values() if row is not None and row < len(snapshot.visible)]
        if len(rows) == len(known) and snapshot.visible[rows].all():
            return np.array(rows, np.int64)
        return np.array([row for row in np.flatnonzero(snapshot.visible).tolist() if self._ids[row] in known], np.int64)

    @contextmanager
    def _pinned(self) -> Iterator[Snapshot]:
        """Keep the version published last as it is while the block runs."""
        with self._lock:
            snapshot = self._snapshots[-1]
            snapshot.pins += 1
        try:
            yield snapshot
        finally:
            with self._lock:
                snapshot.pins -= 1

    @property
    def _round_number(self) -> int:
        return self._snapshots[-1].round_number + 1 if self._snapshots else 0

    def _supersede(self, item_id: str, row: int | None) -> None:
        """Let `row` hold the item in the version to come; a row that was to hold it before has never been seen."""
        unseen = self._pending.get(item_id)
        if unseen is not None:
            self._release([unseen])
        self._pending[item_id] = row

    def _reclaim(self) -> None:
        """Release the rows retired by versions that no search can see any more."""
        kept: list[Snapshot] = []
        unseen: list[int] = []
        with self._lock:
            for snapshot in self._snapshots[:-1]:
                if snapshot.pins:
                    kept.append(snapshot)
                elif kept:
                    kept[-1].retired += snapshot.retired
                else:
                    unseen += snapshot.retired
            self._snapshots = [*kept, *self._snapshots[-1:]]
        self._release(unseen)

    def _release(self, rows: Sequence[int]) -> None:
        released = np.array(rows, np.int64)
        for space in self._spaces.values():
            space.release(released)
        self._metadata.release(released)
        self._ids.release(released)

    def _selection(self, snapshot: Snapshot, space: str, condition: Filter | None) -> Selection:
        key = (space, "" if condition is None else canonical(condition))
        with self._lock:
            known = snapshot.selections.get(key)
            if known is not None:
                snapshot.selections.move_to_end(key)
                return known
        selection = self._spaces[space].selection(self._rows(snapshot, condition))
        with self._lock:
            snapshot.selections[key] = selection
            if len(snapshot.selections) > SELECTIONS_AT_MOST:
                snapshot.selections.popitem(last=False)
        return selection

    def _rows(self, snapshot: Snapshot, condition: Filter | None) -> Numbers:
        if condition is None:
            return np.flatnonzero(snapshot.visible)
        satisfying = self._metadata.satisfying(condition, len(snapshot.visible), snapshot.round_number)
        return np.flatnonzero(snapshot.visible & satisfying)

    def _hits(self, ranking: Ranking, search: Search) -> list[Hit]:
        ids = [self._ids[row] for row in ranking.slots.tolist()]
        best = _best(ids, ranking.scores, search.top_k)
        columns = ([ids[place] for place in best], ranking.scores[best].tolist(), self._spaces_of(ranking.slots[best]))
        return [Hit(*values) for values in zip(*columns, strict=True)]

    def _spaces_of(self, rows: Numbers) -> list[Sequence[str]]:
        """Return for each of `rows` the spaces in which it has a vector."""
        sets = sum(index.holds(rows).astype(np.int64) << bit for bit, index in enumerate(self._by_name))
        names = {
            held: [index.space.name for bit, index in enumerate(self._by_name) if held >> bit & 1]
            for held in np.unique(sets).tolist()
        }
        return [names[held] for held in np.asarray(sets).tolist()]


def _best(ids: Sequence[str], scores: Scores, top_k: int) -> list[int]:
    """Return the places of the `top_k` best of `scores`, which come best first, equal ones in the order of `ids`."""
    places = list(range(len(ids)))
    if len(ids) > top_k:
        tied = int(np.flatnonzero(scores == scores[top_k - 1])[0])
        places = places[:tied] + nsmallest(top_k - tied, places[tied:], key=ids.__getitem__)
    runs = np.cumsum(np.diff(scores, prepend=scores[:1]) != 0).tolist()
    return sorted(places, key=lambda place: (runs[place], ids[place]))
