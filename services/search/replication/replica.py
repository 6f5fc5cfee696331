"""Keeps one collection's index at the store's newest version."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import cast

from services.common.allocator import trim_heap
from services.common.concurrency.retry import Backoff
from services.common.errors import CollectionNotFoundError, ServiceError, VersionUnknownError
from services.common.index_config import IndexConfig
from services.common.versions import Version
from services.search.core.change_feed import ChangeBatch, ChangeFeed, Space, Table
from services.search.core.collection_index import CollectionIndex, Discardable
from services.search.core.errors import IndexTooLargeError
from services.search.replication.lag import Lag

TRIM_BYTES = 32 * 2**20
BACKOFF = Backoff(first=0.1, longest=5.0)
CAPACITY_BACKOFF = Backoff(first=0.1, longest=60.0)

log = logging.getLogger(__name__)

MakeIndex = Callable[[Table], CollectionIndex]
Restore = Callable[[Table], Awaitable[CollectionIndex | None]]
"""Returns an index filled before, to go on with from the version it holds; None where there is none."""


class Replica:
    """Follows one collection until it is dropped. The last complete index answers whatever happens meanwhile.

    It resumes after interruptions. What cannot be resumed, because the store forgot the changes since or the collection
    was made again, is built anew beside the index that answers, and replaces it at its first complete version.
    """

    def __init__(
        self, collection: str, feed: ChangeFeed, make_index: MakeIndex, restore: Restore | None = None
    ) -> None:
        self.collection = collection
        self._feed = feed
        self._make_index = make_index
        self._restore = restore
        self._restored: CollectionIndex | None = None
        self._index: CollectionIndex | None = None
        self._target: CollectionIndex | None = None
        self._must_rebuild = False
        self._corrupt = False
        self._capacity_error: IndexTooLargeError | None = None
        self._rebuild_requested = False
        self._dropped = False
        self._failures = 0
        self._applied_bytes = 0
        self._changed = asyncio.Event()
        self._read_timeout: asyncio.Timeout | None = None
        self._lag = Lag()

    @property
    def index(self) -> CollectionIndex | None:
        """The index as of the last complete version; None before the first, and after the collection was dropped."""
        return self._index

    @property
    def lag_seconds(self) -> float:
        """For how long the store has been known to hold a version not applied yet; 0 at the newest."""
        return self._lag.seconds

    def observe(self, version: Version) -> None:
        """Take note that the store holds `version`, whether its changes come or not."""
        self._lag.observe(version)

    async def run(self) -> None:
        """Follow until the collection is dropped."""
        while not self._dropped:
            try:
                await self._follow()
            except IndexTooLargeError as error:
                log.warning("%s has no room, until there is some: %s", self.collection, str(error))
                self._reject(error.anew())
            except ServiceError as error:
                log.warning("%s cannot be followed now: %s", self.collection, str(error))  # not its traceback's index
            except Exception:
                log.exception("%s is built anew after an unexpected error", self.collection)
                self._must_rebuild = self._corrupt = True
            if not self._dropped:
                await self._back_off()

    async def wait_for_version(self, version: Version | None) -> CollectionIndex:
        """Return the index once it holds `version` or a later version; for None, once it holds any.

        Waits without end: the caller sets the limit.

        Raises:
            CollectionNotFoundError: the collection was dropped.
            VersionUnknownError: `version` is of another collection that had the same name.
            IndexTooLargeError: it is not held, and there is no room for more.
            UnavailableError: the store had to be asked about that and does not answer.
        """
        while True:
            changed = self._changed
            if self._dropped:
                raise CollectionNotFoundError(self.collection)
            if self._index is not None and await self._can_serve(self._index, version):
                return self._index
            if self._capacity_error is not None:
                raise self._capacity_error.anew()
            await changed.wait()

    async def rebuild(self) -> Version:
        """Build the index anew beside the one that answers; return the version it holds once it has taken over.

        Raises:
            CollectionNotFoundError: the collection was dropped.
            IndexTooLargeError: there is no room for a second index; the first goes on.
        """
        old, self._rebuild_requested, self._capacity_error = self._index, True, None
        self._restart()
        while self._index is None or self._index is old or self._rebuild_requested:
            if self._dropped:
                raise CollectionNotFoundError(self.collection)
            if self._capacity_error is not None:
                raise self._capacity_error.anew()
            await self._changed.wait()
        version = self._index.version
        assert version is not None, "an index that answers has a version"
        return version

    async def until_ready(self) -> None:
        """Wait until there is an index to answer from, or no room for one, or no collection any more."""
        while self._index is None and self._capacity_error is None and not self._dropped:
            await self._changed.wait()

    async def _can_serve(self, index: CollectionIndex, version: Version | None) -> bool:
        applied = index.version
        if applied is None:
            if self._target is index:  # its engine has lost it, and nothing is built in its place yet
                self._restart()
            return False
        if version is None:
            return True
        if applied.uid == version.uid:
            return applied.number >= version.number
        table = await self._feed.table(self.collection)
        if table.version.uid != version.uid:
            raise VersionUnknownError(self.collection, str(version))
        self._restart()
        return False

    async def _follow(self) -> None:
        """Follow until the feed ends, or turns out to be of a collection made again under the same name."""
        try:
            table = await self._feed.table(self.collection)
        except CollectionNotFoundError:
            await self._drop()
            return
        self.observe(table.version)
        target, after = await self._choose_target(table)
        self._target = target
        async with aclosing(cast(AsyncGenerator[ChangeBatch], self._feed.changes(self.collection, after))) as changes:
            while not self._rebuild_requested and (batch := await self._next(changes)) is not None:
                if not _belongs_to(batch, table):
                    log.info("%s was made again", self.collection)
                    return
                if batch.spaces:
                    table = replace(table, spaces=batch.spaces)
                if batch.reset:
                    self._target = target = self._make_index(table)
                await self._apply(target, batch)

    async def _choose_target(self, table: Table) -> tuple[CollectionIndex, Version | None]:
        """Return the index to write to and the version it holds."""
        index = self._index or await self._from_snapshot(table)
        if self._rebuild_requested:
            self._rebuild_requested, self._must_rebuild = False, True
        if index is not None and index.version is not None and index.version.uid == table.version.uid:
            index.rollback()
            if not self._must_rebuild:
                return index, index.version
        log.info("%s is built from the store", self.collection)
        return self._make_index(table), None

    async def _from_snapshot(self, table: Table) -> CollectionIndex | None:
        """Return the index that a process before left, looked for once; it answers only once it has caught up."""
        if self._must_rebuild or self._rebuild_requested:
            self._restore = self._restored = None
        if self._restore is not None:
            self._restored = await self._restore(table)
            self._restore = None
        return self._restored

    async def _next(self, changes: AsyncIterator[ChangeBatch]) -> ChangeBatch | None:
        """Return the next part; None at the end, and when `_restart` was called meanwhile."""
        try:
            async with asyncio.timeout(None) as self._read_timeout:
                return await anext(changes, None)
        except TimeoutError:
            return None
        finally:
            self._read_timeout = None

    def _restart(self) -> None:
        if self._read_timeout is not None:
            self._read_timeout.reschedule(asyncio.get_running_loop().time())

    async def _apply(self, target: CollectionIndex, batch: ChangeBatch) -> None:
        if target is self._index:
            self._lag.change_started()
        await asyncio.to_thread(target.write, batch)
        if batch.version is not None:
            await asyncio.to_thread(target.publish, batch.version)
            self._close_all_but(target)
            self._index, self._capacity_error, self._failures = target, None, 0
            self._restore = self._restored = None
            self._must_rebuild = self._corrupt = False
            self._lag.applied(batch.version)
            self._notify_waiters()
        await self._trim_memory(batch)

    async def _trim_memory(self, batch: ChangeBatch) -> None:
        """Now and then give back the memory that parts came in."""
        self._applied_bytes += sum(each.vectors.nbytes for each in batch.vectors.values())
        if batch.version is not None and self._applied_bytes > TRIM_BYTES:
            self._applied_bytes = 0
            await asyncio.to_thread(trim_heap)

    def _reject(self, error: IndexTooLargeError) -> None:
        """Tell those who wait; an index that was only to be built anew because somebody asked goes on."""
        self._capacity_error, self._must_rebuild = error, self._corrupt
        self._notify_waiters()

    async def _drop(self) -> None:
        log.info("%s was dropped", self.collection)
        self._close_all_but(None)
        dropped, self._index, self._dropped = self._index or self._restored, None, True
        self._notify_waiters()
        if isinstance(dropped, Discardable):
            await asyncio.to_thread(dropped.discard)

    def _close_all_but(self, kept: CollectionIndex | None) -> None:
        for index in (self._index, self._restored):
            if index is not None and index is not kept:
                index.close()

    def _notify_waiters(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _back_off(self) -> None:
        """Wait before the next try: longer from time to time, and not in step with others."""
        self._failures += 1
        backoff = BACKOFF if self._capacity_error is None else CAPACITY_BACKOFF
        await asyncio.sleep(backoff.pause(self._failures))


def _belongs_to(batch: ChangeBatch, table: Table) -> bool:
    """Return whether `batch` can be of `table`: another collection of the name may have other spaces."""
    dimensions = {space.name: space.dimensions for space in table.spaces}
    return (
        (batch.version is None or batch.version.uid == table.version.uid)
        and (not batch.spaces or _identities(batch.spaces) == _identities(table.spaces))
        and all(dimensions.get(name) == space_vectors.vectors.shape[1] for name, space_vectors in batch.vectors.items())
    )


def _identities(spaces: Sequence[Space]) -> set[Space]:
    """Return `spaces` but for how they are indexed, which can change."""
    return {replace(space, config=IndexConfig()) for space in spaces}
