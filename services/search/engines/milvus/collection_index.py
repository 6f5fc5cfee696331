"""A collection whose vectors lie in Milvus.

Milvus has no transactions, so versions are kept by the rows themselves. Each version is a round: a row tells in which
round it was born and in which it died, and a search asks for those that live in one. A change is written as the round
to come, which nobody sees until the marker names it. What a change has left unfinished is undone before the next one.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from services.common.errors import ServiceError, SpaceNotFoundError
from services.common.vectors import Matrix
from services.common.versions import Version
from services.search.core.change_feed import ChangeBatch, Space, Table
from services.search.core.collection_index import Search, SearchResult, SpaceState, State
from services.search.engines.milvus.client import Milvus
from services.search.engines.milvus.errors import MilvusLostError, MilvusUnavailableError
from services.search.engines.milvus.read_view import MilvusReadView
from services.search.engines.milvus.transaction import Transaction, sweep
from services.search.engines.milvus.version_pointer import Markers, VersionPointer

_POLL_SECONDS = 0.25

T = TypeVar("T")

log = logging.getLogger(__name__)


class MilvusCollectionIndex:
    """`CollectionIndex` over Milvus. One process writes; others read what its marker names, and publish nothing.

    Of two that would write, the one that began last does, and the other reads from then on. An index whose rows are
    found to be gone has no version any more, and is built anew.
    """

    def __init__(self, milvus: Milvus, table: Table, writer: str, shown: VersionPointer | None = None) -> None:
        """`writer` names this process; `shown` is the marker of what there is already, None builds anew."""
        self._milvus = milvus
        self._markers = Markers(milvus)
        self._collection, self._uid = table.collection, table.version.uid
        self._writer = writer
        self._writes = milvus.options.writer
        self._spaces = {space.name: space for space in table.spaces}
        self._pending_spaces: Sequence[Space] = ()
        self._shown: MilvusReadView | None = None
        self._round: Transaction | None = None
        self._lost = False
        self._unsure = True
        self._superseded: deque[tuple[float, int]] = deque()
        self._looked = 0.0
        self._marking = threading.Lock()
        if shown is not None:
            self._show(shown)

    @property
    def version(self) -> Version | None:
        """The version published last; None before the first, and once Milvus has lost it."""
        return self._shown.version if self._shown and not self._lost else None

    def space(self, name: str) -> Space:
        """See `CollectionIndex`."""
        if name not in self._spaces:
            raise SpaceNotFoundError(name, sorted(self._spaces))
        return self._spaces[name]

    def states(self) -> Sequence[SpaceState]:
        """See `CollectionIndex`. The memory is Milvus's, so none is told."""
        shown = self._shown
        return [self._state(shown, self._spaces[name]) for name in sorted(self._spaces)] if shown else []

    def write(self, part: ChangeBatch) -> None:
        """See `CollectionIndex`."""
        self._pending_spaces = part.spaces or self._pending_spaces
        with self._noticing_loss():
            under_way = self._begun()
            if under_way is not None:
                under_way.write(part)

    def publish(self, version: Version) -> None:
        """See `CollectionIndex`. A process that only reads waits until the one that writes has published it.

        Raises:
            MilvusUnavailableError: it has not, in time.
        """
        with self._noticing_loss():
            under_way = self._begun()
            spaces = {space.name: space for space in self._pending_spaces} or self._spaces
            if under_way is None:
                self._await(version)
                self._spaces, self._pending_spaces = spaces, ()
                return
            marker = under_way.completed(version, spaces)
            self._spaces, self._pending_spaces = spaces, ()
            with self._marking:
                self._markers.write(marker)
                before = self._show(marker)
        self._round, self._unsure = None, False
        self._tidy(marker, before)

    def rollback(self) -> None:
        """See `CollectionIndex`. It is undone in Milvus before the next change."""
        self._round, self._unsure, self._pending_spaces = None, True, ()

    def close(self) -> None:
        """See `CollectionIndex`. The connection is that of all collections."""

    def search(self, search: Search, queries: Matrix) -> Sequence[SearchResult]:
        """See `CollectionIndex`.

        Raises:
            FilterError: Milvus cannot answer the filter exactly.
            UnavailableError: Milvus does not answer.
        """
        self.space(search.space)
        return self._read(lambda shown: shown.search(search, queries))

    def item_ids(self, space: str) -> tuple[Sequence[str], Version]:
        """See `CollectionIndex`."""
        self.space(space)
        return self._read(lambda shown: (shown.ids(space), shown.version))

    def discard(self) -> None:
        """See `Discardable`."""
        if self._writes:
            sweep(self._milvus, self._uid, None)
            self._markers.remove(self._uid)

    def _read(self, read: Callable[[MilvusReadView], T]) -> T:
        """Return what `read` makes of the newest version; of the next one where another process has put it there."""
        shown = self._current()
        try:
            return read(shown)
        except MilvusLostError as error:
            renewed = self._renewed()
            if renewed is None or renewed.marker.spaces == shown.marker.spaces:
                log.warning("%s: %s", self._collection, error)
                self._lost = True
                raise
            return read(renewed)

    @contextmanager
    def _noticing_loss(self) -> Iterator[None]:
        try:
            yield
        except MilvusLostError:
            self._lost = self._shown is not None
            raise

    def _current(self) -> MilvusReadView:
        """Return the version to search; from time to time the marker is looked at, before rows may be gone."""
        shown = self._shown
        due = time.monotonic() - self._looked > self._milvus.options.grace_seconds / 2
        if due and self._marking.acquire(blocking=False):
            try:
                shown = self._looked_up()
            finally:
                self._marking.release()
        if shown is None or self._lost:
            raise MilvusLostError(f"version of {self._collection}")
        return shown

    def _renewed(self) -> MilvusReadView | None:
        """Return the version that the marker names now; None where there is none that can be searched."""
        with self._marking:
            return self._looked_up()

    def _looked_up(self) -> MilvusReadView | None:
        marker, shown = self._markers.read(self._uid), self._shown
        if marker is None or not fits(marker, self._spaces) or (shown is not None and _older(marker, shown.marker)):
            self._lost = shown is not None
            return None
        if shown is None or marker != shown.marker:
            self._show(marker)
        self._looked = time.monotonic()
        return self._shown

    def _show(self, marker: VersionPointer) -> VersionPointer | None:
        """Let searches see what `marker` names; return the one before."""
        before = self._shown.marker if self._shown else None
        if before is not None and before.build == marker.build:
            self._superseded.append((time.monotonic(), before.round_number))
        else:
            self._superseded.clear()
        self._shown, self._looked = MilvusReadView(self._milvus, marker, self._spaces), time.monotonic()
        return before

    def _begun(self) -> Transaction | None:
        """Return the round under way, begun if there is none; None where another process writes."""
        if self._writes and self._round is None:
            self._round = self._next_round()
        return self._round

    def _next_round(self) -> Transaction | None:
        if self._shown is None:
            sweep(self._milvus, self._uid, self._markers.read(self._uid))
            return Transaction.first(self._milvus, self._collection, self._uid, self._writer, self._spaces)
        claimed = self._shown.marker.writer == self._writer
        shown = self._renewed()
        if shown is None:
            raise MilvusLostError(f"version of {self._collection}")
        if shown.marker.writer != self._writer:
            if claimed:
                log.warning("another process writes %s to Milvus now; this one reads", self._collection)
                self._writes = False
                return None
            shown = self._claimed(shown)
        if self._unsure:
            for space in shown.spaces.values():
                space.roll_back(shown.marker.round_number)
            self._unsure = False
        return Transaction.next(self._milvus, shown.marker, shown.spaces)

    def _claimed(self, shown: MilvusReadView) -> MilvusReadView:
        """Return `shown` once its marker says that this process writes."""
        with self._marking:
            claim = replace(shown.marker, writer=self._writer)
            self._markers.write(claim)
            self._shown = claimed = MilvusReadView(self._milvus, claim, self._spaces)
            return claimed

    def _await(self, version: Version) -> None:
        """Wait until another process has published `version`, or a later one."""
        give_up = time.monotonic() + self._milvus.options.write_seconds
        while (shown := self._renewed()) is None or shown.version.number < version.number:
            if time.monotonic() > give_up:
                problem = f"does not hold version {version}: is there a process that writes it?"
                raise MilvusUnavailableError(self._milvus.options.uri, "waiting for the writer", problem)
            time.sleep(_POLL_SECONDS)

    def _tidy(self, marker: VersionPointer, before: VersionPointer | None) -> None:
        """Remove what no search can ask for any more; what cannot be removed now is removed later."""
        try:
            if before is None or _names(before) != _names(marker):
                sweep(self._milvus, self._uid, marker)
            if before is None:
                self._forget_namesakes()
            self._forget_old_rounds()
        except ServiceError as error:
            log.warning("%s keeps more in Milvus than it needs: %s", self._collection, error)

    def _forget_namesakes(self) -> None:
        """Remove what there is of collections that had the name before."""
        for marker in self._markers.all():
            if marker.collection == self._collection and marker.uid != self._uid:
                sweep(self._milvus, marker.uid, None)
                self._markers.remove(marker.uid)

    def _forget_old_rounds(self) -> None:
        old = time.monotonic() - self._milvus.options.grace_seconds
        unseen = None
        while self._superseded and self._superseded[0][0] < old:
            _, unseen = self._superseded.popleft()
        if unseen is not None and self._shown is not None:
            for space in self._shown.spaces.values():
                space.forget(unseen + 1)

    def _state(self, shown: MilvusReadView, space: Space) -> SpaceState:
        counted, state, note = 0, State.READY, ""
        try:
            counted = shown.count(space.name)
        except ServiceError as error:
            state, note = State.FAILED, str(error)
        if shown.spaces[space.name].space.config != space.config:
            state, note = State.BUILDING, note or "Milvus builds the new index; the one before it answers"
        engine = shown.engine(space.name)
        return SpaceState(space, engine, counted, 0, shown.version, space.config, state, note)


def fits(marker: VersionPointer, spaces: Mapping[str, Space]) -> bool:
    """Return whether `marker` names vectors of all `spaces`."""
    return marker.spaces.keys() == spaces.keys() and all(
        kept.fits(spaces[name]) for name, kept in marker.spaces.items()
    )


def _older(marker: VersionPointer, than: VersionPointer) -> bool:
    """Return whether Milvus has gone back behind what it held: someone put an old state of it in its place."""
    return marker.build == than.build and marker.round_number < than.round_number


def _names(marker: VersionPointer) -> set[str]:
    return {kept.name for kept in marker.spaces.values()}
