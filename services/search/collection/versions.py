"""The versions of a local collection that somebody can still see, and which rows none of them shows any more.

A search looks at a version until it is done. A `Keep` holds one from search to search, but not at any price: when the
rows that older versions alone show become more than the newest has, the oldest keeps lapse. So memory is at most about
doubled by those who read slowly.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from services.common.versions import Version
from services.search.core.errors import LeaseExpiredError
from services.search.core.vector_index import Mask, Selection

SELECTIONS_AT_MOST = 64
HELD_ROWS_AT_LEAST = 2**14
"""As many rows may be held for older versions however few the newest has."""


@dataclass(slots=True, eq=False)
class PublishedVersion:
    """One version of a collection. `visible[row]` says whether the row belongs to it.

    The rest is for `VersionSet`: `round_number` counts publications, `pins` the searches under way, `keeps` those who
    come back, and `retired` are the rows that the next version no longer shows. Selections made for it are kept, the
    last used ones.
    """

    version: Version
    round_number: int
    visible: Mask
    pins: int = 0
    keeps: "set[Keep]" = field(default_factory=set)
    retired: list[int] = field(default_factory=list)
    selections: OrderedDict[tuple[str, str], Selection] = field(default_factory=OrderedDict)


@dataclass(frozen=True, slots=True, eq=False)
class Keep:
    """A snapshot that stays as it is until the keep is released, or lapses."""

    snapshot: PublishedVersion


class VersionSet:
    """Versions, oldest first. One thread publishes and reclaims; any may pin, keep and release."""

    def __init__(self) -> None:
        self._snapshots: Sequence[PublishedVersion] = []
        self._lock = threading.Lock()

    @property
    def newest(self) -> PublishedVersion | None:
        """The snapshot published last; None before the first."""
        return self._snapshots[-1] if self._snapshots else None

    def publish(self, snapshot: PublishedVersion, retired: list[int]) -> None:
        """Make `snapshot` the newest, which no longer shows the rows `retired` of the one before."""
        with self._lock:
            if self._snapshots:
                self._snapshots[-1].retired = retired
            self._snapshots = [*self._snapshots, snapshot]

    def vacuum(self) -> list[int]:
        """Forget the versions that nobody can see any more; return the rows that are free with that."""
        with self._lock:
            if not self._snapshots:
                return []
            unseen = self._forget()
            while self._held > self._held_at_most and self._snapshots[0].keeps:
                self._snapshots[0].keeps.clear()  # while a search is in the oldest, no other frees anything
                unseen += self._forget()
            return unseen

    @contextmanager
    def pinned(self) -> Iterator[PublishedVersion]:
        """Keep the newest version as it is while the block runs."""
        with self._lock:
            snapshot = self._snapshots[-1]
            snapshot.pins += 1
        try:
            yield snapshot
        finally:
            self._unpin(snapshot)

    def keep(self) -> Keep:
        """Keep the newest version as it is until the keep is released, or lapses."""
        with self._lock:
            keep = Keep(self._snapshots[-1])
            keep.snapshot.keeps.add(keep)
        return keep

    @contextmanager
    def pinned_by(self, keep: Keep) -> Iterator[PublishedVersion]:
        """Keep the version of `keep` as it is while the block runs, also if the keep is released meanwhile.

        Raises:
            LeaseExpiredError: it was released, or has lapsed.
        """
        with self._lock:
            if keep not in keep.snapshot.keeps:
                raise LeaseExpiredError
            keep.snapshot.pins += 1
        try:
            yield keep.snapshot
        finally:
            self._unpin(keep.snapshot)

    def release(self, keep: Keep) -> None:
        """Give up what is kept; once is enough."""
        with self._lock:
            keep.snapshot.keeps.discard(keep)

    def selection(self, snapshot: PublishedVersion, key: tuple[str, str]) -> Selection | None:
        """Return the selection that is remembered for a space and a filter."""
        with self._lock:
            known = snapshot.selections.get(key)
            if known is not None:
                snapshot.selections.move_to_end(key)
            return known

    def remember(self, snapshot: PublishedVersion, key: tuple[str, str], selection: Selection) -> None:
        """Remember a selection, in place of the one that was not used for longest."""
        with self._lock:
            snapshot.selections[key] = selection
            if len(snapshot.selections) > SELECTIONS_AT_MOST:
                snapshot.selections.popitem(last=False)

    def _unpin(self, snapshot: PublishedVersion) -> None:
        with self._lock:
            snapshot.pins -= 1

    @property
    def _held(self) -> int:
        return sum(len(snapshot.retired) for snapshot in self._snapshots[:-1])

    @property
    def _held_at_most(self) -> int:
        return max(HELD_ROWS_AT_LEAST, int(np.count_nonzero(self._snapshots[-1].visible)))

    def _forget(self) -> list[int]:
        kept: list[PublishedVersion] = []
        unseen: list[int] = []
        for snapshot in self._snapshots[:-1]:
            if snapshot.pins or snapshot.keeps:
                kept.append(snapshot)
            elif kept:
                kept[-1].retired += snapshot.retired
            else:
                unseen += snapshot.retired
        self._snapshots = [*kept, *self._snapshots[-1:]]
        return unseen
