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
from services.search.engines.milvus.transaction import Transaction, drop_orphans
from services.search.engines.milvus.version_pointer import VersionPointer, VersionPointers

_POLL_SECONDS = 0.25

T = TypeVar("T")

log = logging.getLogger(__name__)


class MilvusCollectionIndex:
    """`CollectionIndex` over Milvus. One process writes; others read what its marker names, and publish nothing.

    Of two that would write, the one that began last does, and the other reads from then on. An index whose rows are
    found to be gone has no version any more, and is built anew.
    """

    def __init__(self, milvus: Milvus, table: Table, writer: str, pointer: VersionPointer | None = None) -> None:
        """`writer` names this process; `view` is the marker of what there is already, None builds anew."""
        self._milvus = milvus
        self._version_pointers = VersionPointers(milvus)
        self._collection, self._uid = table.collection, table.version.uid
        self._writer = writer
        self._writes = milvus.options.writer
        self._spaces = {space.name: space for space in table.spaces}
        self._pending_spaces: Sequence[Space] = ()
        self._view: MilvusReadView | None = None
        self._transaction: Transaction | None = None
        self._lost = False
        self._needs_rollback = True
        self._superseded: deque[tuple[float, int]] = deque()
        self._read_at = 0.0
        self._pointer_lock = threading.Lock()
        if pointer is not None:
            self._show(pointer)

    @property
    def version(self) -> Version | None:
        """The version published last; None before the first, and once Milvus has lost it."""
        return self._view.version if self._view and not self._lost else None

    def space(self, name: str) -> Space:
        if name not in self._spaces:
            raise SpaceNotFoundError(name, sorted(self._spaces))
        return self._spaces[name]

    def states(self) -> Sequence[SpaceState]:
        """Return the states; their memory is in Milvus, so it is not reported."""
        view = self._view
        return [self._state(view, self._spaces[name]) for name in sorted(self._spaces)] if view else []

    def write(self, batch: ChangeBatch) -> None:
        self._pending_spaces = batch.spaces or self._pending_spaces
        with self._detect_loss():
            transaction = self._current_transaction()
            if transaction is not None:
                transaction.write(batch)

    def publish(self, version: Version) -> None:
        """A process that only reads waits until the one that writes has published it.

        Raises:
            MilvusUnavailableError: it has not, in time.
        """
        with self._detect_loss():
            transaction = self._current_transaction()
            spaces = {space.name: space for space in self._pending_spaces} or self._spaces
            if transaction is None:
                self._wait_for_version(version)
                self._spaces, self._pending_spaces = spaces, ()
                return
            pointer = transaction.prepare_commit(version, spaces)
            self._spaces, self._pending_spaces = spaces, ()
            with self._pointer_lock:
                self._version_pointers.write(pointer)
                before = self._show(pointer)
        self._transaction, self._needs_rollback = None, False
        self._clean_up(pointer, before)

    def rollback(self) -> None:
        """Milvus undoes it before the next change."""
        self._transaction, self._needs_rollback, self._pending_spaces = None, True, ()

    def close(self) -> None:
        """Close nothing: all collections share the connection."""

    def search(self, search: Search, queries: Matrix) -> Sequence[SearchResult]:
        """See `CollectionIndex`.

        Raises:
            FilterError: Milvus cannot answer the filter exactly.
            UnavailableError: Milvus does not answer.
        """
        self.space(search.space)
        return self._read(lambda view: view.search(search, queries))

    def item_ids(self, space: str) -> tuple[Sequence[str], Version]:
        self.space(space)
        return self._read(lambda view: (view.ids(space), view.version))

    def discard(self) -> None:
        if self._writes:
            drop_orphans(self._milvus, self._uid, None)
            self._version_pointers.remove(self._uid)

    def _read(self, read: Callable[[MilvusReadView], T]) -> T:
        """Return what `read` makes of the newest version; of the next one where another process has put it there."""
        view = self._current()
        try:
            return read(view)
        except MilvusLostError as error:
            refreshed = self._refresh_locked()
            if refreshed is None or refreshed.pointer.spaces == view.pointer.spaces:
                log.warning("%s: %s", self._collection, error)
                self._lost = True
                raise
            return read(refreshed)

    @contextmanager
    def _detect_loss(self) -> Iterator[None]:
        try:
            yield
        except MilvusLostError:
            self._lost = self._view is not None
            raise

    def _current(self) -> MilvusReadView:
        """Return the version to search; from time to time the marker is looked at, before rows may be gone."""
        view = self._view
        due = time.monotonic() - self._read_at > self._milvus.options.grace_seconds / 2
        if due and self._pointer_lock.acquire(blocking=False):
            try:
                view = self._refresh()
            finally:
                self._pointer_lock.release()
        if view is None or self._lost:
            raise MilvusLostError(f"version of {self._collection}")
        return view

    def _refresh_locked(self) -> MilvusReadView | None:
        """Return the version that the marker names now; None where there is none that can be searched."""
        with self._pointer_lock:
            return self._refresh()

    def _refresh(self) -> MilvusReadView | None:
        pointer, view = self._version_pointers.read(self._uid), self._view
        if (
            pointer is None
            or not fits(pointer, self._spaces)
            or (view is not None and _is_older(pointer, view.pointer))
        ):
            self._lost = view is not None
            return None
        if view is None or pointer != view.pointer:
            self._show(pointer)
        self._read_at = time.monotonic()
        return self._view

    def _show(self, pointer: VersionPointer) -> VersionPointer | None:
        """Let searches see what `pointer` names; return the one before."""
        before = self._view.pointer if self._view else None
        if before is not None and before.build == pointer.build:
            self._superseded.append((time.monotonic(), before.round_number))
        else:
            self._superseded.clear()
        self._view, self._read_at = MilvusReadView(self._milvus, pointer, self._spaces), time.monotonic()
        return before

    def _current_transaction(self) -> Transaction | None:
        """Return the round under way, begun if there is none; None where another process writes."""
        if self._writes and self._transaction is None:
            self._transaction = self._begin_transaction()
        return self._transaction

    def _begin_transaction(self) -> Transaction | None:
        if self._view is None:
            drop_orphans(self._milvus, self._uid, self._version_pointers.read(self._uid))
            return Transaction.first(self._milvus, self._collection, self._uid, self._writer, self._spaces)
        was_writer = self._view.pointer.writer == self._writer
        view = self._refresh_locked()
        if view is None:
            raise MilvusLostError(f"version of {self._collection}")
        if view.pointer.writer != self._writer:
            if was_writer:
                log.warning("another process writes %s to Milvus now; this one reads", self._collection)
                self._writes = False
                return None
            view = self._claim(view)
        if self._needs_rollback:
            for space in view.spaces.values():
                space.rollback(view.pointer.round_number)
            self._needs_rollback = False
        return Transaction.next(self._milvus, view.pointer, view.spaces)

    def _claim(self, view: MilvusReadView) -> MilvusReadView:
        """Return `view` once its marker says that this process writes."""
        with self._pointer_lock:
            claim = replace(view.pointer, writer=self._writer)
            self._version_pointers.write(claim)
            self._view = claimed = MilvusReadView(self._milvus, claim, self._spaces)
            return claimed

    def _wait_for_version(self, version: Version) -> None:
        """Wait until another process has published `version`, or a later one."""
        give_up = time.monotonic() + self._milvus.options.write_seconds
        while (view := self._refresh_locked()) is None or view.version.number < version.number:
            if time.monotonic() > give_up:
                problem = f"does not hold version {version}: is there a process that writes it?"
                raise MilvusUnavailableError(self._milvus.options.uri, "waiting for the writer", problem)
            time.sleep(_POLL_SECONDS)

    def _clean_up(self, pointer: VersionPointer, before: VersionPointer | None) -> None:
        """Remove what no search can ask for any more; what cannot be removed now is removed later."""
        try:
            if before is None or _space_names(before) != _space_names(pointer):
                drop_orphans(self._milvus, self._uid, pointer)
            if before is None:
                self._remove_namesakes()
            self._vacuum()
        except ServiceError as error:
            log.warning("%s keeps more in Milvus than it needs: %s", self._collection, error)

    def _remove_namesakes(self) -> None:
        """Remove what there is of collections that had the name before."""
        for pointer in self._version_pointers.all():
            if pointer.collection == self._collection and pointer.uid != self._uid:
                drop_orphans(self._milvus, pointer.uid, None)
                self._version_pointers.remove(pointer.uid)

    def _vacuum(self) -> None:
        old = time.monotonic() - self._milvus.options.grace_seconds
        unseen = None
        while self._superseded and self._superseded[0][0] < old:
            _, unseen = self._superseded.popleft()
        if unseen is not None and self._view is not None:
            for space in self._view.spaces.values():
                space.vacuum(unseen + 1)

    def _state(self, view: MilvusReadView, space: Space) -> SpaceState:
        counted, state, note = 0, State.READY, ""
        try:
            counted = view.count(space.name)
        except ServiceError as error:
            state, note = State.FAILED, str(error)
        if view.spaces[space.name].space.config != space.config:
            state, note = State.BUILDING, note or "Milvus builds the new index; the one before it answers"
        engine = view.engine(space.name)
        return SpaceState(space, engine, counted, 0, view.version, space.config, state, note)


def fits(pointer: VersionPointer, spaces: Mapping[str, Space]) -> bool:
    """Return whether `pointer` names vectors of all `spaces`."""
    return pointer.spaces.keys() == spaces.keys() and all(
        stored.fits(spaces[name]) for name, stored in pointer.spaces.items()
    )


def _is_older(pointer: VersionPointer, than: VersionPointer) -> bool:
    """Return whether Milvus has gone back behind what it held: someone put an old state of it in its place."""
    return pointer.build == than.build and pointer.round_number < than.round_number


def _space_names(pointer: VersionPointer) -> set[str]:
    return {stored.name for stored in pointer.spaces.values()}
