"""The versions of a local collection that somebody can still see, and which rows none of them shows any more.

A search looks at a version until it is done. A `Lease` holds one from search to search, but not at any price: when the
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

MAX_SELECTIONS = 64
MIN_RETAINED_ROWS = 2**14
"""As many rows may be held for older versions however few the newest has."""


@dataclass(slots=True, eq=False)
class PublishedVersion:
    """One version of a collection. `visible[row]` says whether the row belongs to it.

    The rest is for `VersionSet`: `round_number` counts publications, `pins` the searches under way, `leases` those who
    come back, and `retired` are the rows that the next version no longer shows. Selections made for it are kept, the
    last used ones.
    """

    version: Version
    round_number: int
    visible: Mask
    pins: int = 0
    leases: "set[Lease]" = field(default_factory=set)
    retired: list[int] = field(default_factory=list)
    selections: OrderedDict[tuple[str, str], Selection] = field(default_factory=OrderedDict)


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """A snapshot that stays as it is until the keep is released, or lapses."""

    published: PublishedVersion


class VersionSet:
    """Versions, oldest first. One thread publishes and reclaims; any may pin, keep and release."""

    def __init__(self) -> None:
        self._versions: Sequence[PublishedVersion] = []
        self._lock = threading.Lock()

    @property
    def newest(self) -> PublishedVersion | None:
        """The snapshot published last; None before the first."""
        return self._versions[-1] if self._versions else None

    def publish(self, published: PublishedVersion, retired: list[int]) -> None:
        """Make `published` the newest, which no longer shows the rows `retired` of the one before."""
        with self._lock:
            if self._versions:
                self._versions[-1].retired = retired
            self._versions = [*self._versions, published]

    def vacuum(self) -> list[int]:
        """Forget the versions that nobody can see any more; return the rows that are free with that."""
        with self._lock:
            if not self._versions:
                return []
            freed = self._drop_unused()
            while self._retained_rows > self._max_retained_rows and self._versions[0].leases:
                self._versions[0].leases.clear()  # while a search is in the oldest, no other frees anything
                freed += self._drop_unused()
            return freed

    @contextmanager
    def pin(self) -> Iterator[PublishedVersion]:
        """Keep the newest version as it is while the block runs."""
        with self._lock:
            published = self._versions[-1]
            published.pins += 1
        try:
            yield published
        finally:
            self._unpin(published)

    def lease(self) -> Lease:
        """Keep the newest version as it is until the keep is released, or lapses."""
        with self._lock:
            lease = Lease(self._versions[-1])
            lease.published.leases.add(lease)
        return lease

    @contextmanager
    def pin_lease(self, lease: Lease) -> Iterator[PublishedVersion]:
        """Keep the version of `lease` as it is while the block runs, also if the keep is released meanwhile.

        Raises:
            LeaseExpiredError: it was released, or has lapsed.
        """
        with self._lock:
            if lease not in lease.published.leases:
                raise LeaseExpiredError
            lease.published.pins += 1
        try:
            yield lease.published
        finally:
            self._unpin(lease.published)

    def release(self, lease: Lease) -> None:
        """Give up what is kept; once is enough."""
        with self._lock:
            lease.published.leases.discard(lease)

    def selection(self, published: PublishedVersion, key: tuple[str, str]) -> Selection | None:
        """Return the selection that is remembered for a space and a filter."""
        with self._lock:
            known = published.selections.get(key)
            if known is not None:
                published.selections.move_to_end(key)
            return known

    def cache_selection(self, published: PublishedVersion, key: tuple[str, str], selection: Selection) -> None:
        """Remember a selection, in place of the one that was not used for longest."""
        with self._lock:
            published.selections[key] = selection
            if len(published.selections) > MAX_SELECTIONS:
                published.selections.popitem(last=False)

    def _unpin(self, published: PublishedVersion) -> None:
        with self._lock:
            published.pins -= 1

    @property
    def _retained_rows(self) -> int:
        return sum(len(published.retired) for published in self._versions[:-1])

    @property
    def _max_retained_rows(self) -> int:
        return max(MIN_RETAINED_ROWS, int(np.count_nonzero(self._versions[-1].visible)))

    def _drop_unused(self) -> list[int]:
        kept: list[PublishedVersion] = []
        freed: list[int] = []
        for published in self._versions[:-1]:
            if published.pins or published.leases:
                kept.append(published)
            elif kept:
                kept[-1].retired += published.retired
            else:
                freed += published.retired
        self._versions = [*kept, *self._versions[-1:]]
        return freed
