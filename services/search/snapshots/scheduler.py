"""Loads what this process follows from snapshots, and saves it: from time to time, and once more when it stops."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

from services.common.concurrency.executors import BoundedExecutor
from services.common.errors import ServiceError
from services.common.versions import Version
from services.search.core.change_feed import ChangeFeed, Table
from services.search.core.collection_index import CollectionIndex
from services.search.core.portable_index import PortableIndex
from services.search.replication.replica import Replica
from services.search.replication.replicas import Replicas
from services.search.snapshots.repository import MakeIndex, SnapshotRepository

LOOK_SECONDS = 1.0
FORGET_SECONDS = 300.0
SAVING_SHARE = 0.1
"""A collection is being saved for no more than this share of the time."""

DropSnapshots = Callable[[str, Version], Awaitable[int]]
"""Removes the snapshots of a collection that are of versions before one; returns how many."""

log = logging.getLogger(__name__)


async def no_snapshots(collection: str, version: Version) -> int:
    """`DropSnapshots` where there are none."""
    return 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Seconds: between snapshots of a collection, for loading one at most, and for saving at the end at most."""

    between: float
    load: float
    stop: float


class SnapshotScheduler:
    """Keeps the indexes of a process, which are all portable, in an `SnapshotRepository`; saves one at a time."""

    def __init__(
        self, archive: SnapshotRepository, make_index: MakeIndex, executor: BoundedExecutor, pace: Schedule
    ) -> None:
        self._archive = archive
        self._make_index = make_index
        self._executor = executor
        self._pace = pace
        self._stopping = asyncio.Event()
        self._until = float("inf")
        self._not_before: dict[str, float] = {}
        self._took: dict[str, float] = {}

    async def restored(self, table: Table) -> CollectionIndex | None:
        """Return an index of `table` filled from its newest usable snapshot; None where there is none."""
        until = time.monotonic() + self._pace.load

        def patience() -> float:
            return 0.0 if self._stopping.is_set() else until - time.monotonic()

        return await self._executor.run(self._archive.load, table, self._make_index, patience)

    async def drop(self, collection: str, version: Version) -> int:
        """Remove the snapshots of a collection that are of versions before `version`; return how many.

        Raises:
            ServiceUnavailableError: they cannot be removed now.
        """
        return await self._executor.run(self._archive.drop_before, collection, version)

    @asynccontextmanager
    async def saving(self, feed: ChangeFeed, followers: Replicas) -> AsyncIterator[None]:
        """Save what `followers` hold while the block runs, and after it what is not saved yet, as time allows."""
        task = asyncio.create_task(self._work(feed, followers))
        try:
            yield
        finally:
            self._until = time.monotonic() + self._pace.stop
            self._stopping.set()
            await asyncio.wait([task], timeout=self._pace.stop)
            task.cancel()
            for follower in followers.all():
                await self._save_last(follower)

    async def _work(self, feed: ChangeFeed, followers: Replicas) -> None:
        known: set[str] = set()
        forget_at = 0.0
        while not self._stopping.is_set():
            for follower in followers.all():
                if self._is_due(follower) and not self._stopping.is_set():
                    await self._save(follower)
            now = {follower.collection for follower in followers.all()}
            if known - now or time.monotonic() >= forget_at:
                await self._forget_dropped(feed)
                forget_at = time.monotonic() + FORGET_SECONDS
            known = now
            await self._look_again(min(LOOK_SECONDS, self._pace.between))

    async def _look_again(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _is_due(self, follower: Replica) -> bool:
        index = cast(PortableIndex | None, follower.index)
        late = time.monotonic() >= self._not_before.get(follower.collection, 0.0)
        return index is not None and late and not self._archive.holds(follower.collection, index)

    async def _save(self, follower: Replica) -> None:
        """Save the index, unless a process that shares the store has done so lately."""
        began = time.monotonic()
        try:
            await self._executor.run(self._save_older, follower, self._pace.between)
        except (ServiceError, TimeoutError) as error:
            log.warning("no snapshot of %s is saved: %s", follower.collection, error)
        except Exception:
            log.exception("no snapshot of %s is saved", follower.collection)
        took = self._took[follower.collection] = time.monotonic() - began
        self._not_before[follower.collection] = time.monotonic() + max(self._pace.between, took / SAVING_SHARE)

    async def _save_last(self, follower: Replica) -> None:
        """Save the index at the end if it can be done in time."""
        if self._took.get(follower.collection, 0.0) > self._until - time.monotonic():
            log.info("%s takes too long to be saved at the end", follower.collection)
            return
        self._not_before.clear()
        if self._is_due(follower):
            await self._save(follower)

    def _save_older(self, follower: Replica, seconds: float) -> None:
        """Save the index if the newest snapshot is older than that; one built anew is saved in any case."""
        collection, index = follower.collection, cast(PortableIndex | None, follower.index)
        if index is None or index.version is None:
            return
        old_enough = 0.0 if self._stopping.is_set() else seconds
        replaced = self._archive.was_replaced(collection, index)
        if replaced or self._archive.age_seconds(collection, index.version) > old_enough:
            self._archive.save(collection, index, lambda: self._until - time.monotonic())

    async def _forget_dropped(self, feed: ChangeFeed) -> None:
        """Remove the snapshots of collections that the store, asked after they were listed, does not have."""
        try:
            kept = await self._executor.run(self._archive.collections)
            for collection in kept - {table.collection for table in await feed.tables()}:
                log.info("the snapshots of %s, which was dropped, are removed", collection)
                await self._executor.run(self._archive.forget, collection)
        except ServiceError as error:
            log.warning("snapshots of dropped collections are not looked for now: %s", error)
        except Exception:
            log.exception("snapshots of dropped collections are not looked for now")
