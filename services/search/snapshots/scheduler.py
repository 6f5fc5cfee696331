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

POLL_SECONDS = 1.0
CLEANUP_SECONDS = 300.0
MAX_SAVING_SHARE = 0.1
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
        self, repository: SnapshotRepository, make_index: MakeIndex, executor: BoundedExecutor, schedule: Schedule
    ) -> None:
        self._repository = repository
        self._make_index = make_index
        self._executor = executor
        self._schedule = schedule
        self._stopping = asyncio.Event()
        self._until = float("inf")
        self._not_before: dict[str, float] = {}
        self._took: dict[str, float] = {}

    async def restore(self, table: Table) -> CollectionIndex | None:
        """Return an index of `table` filled from its newest usable snapshot; None where there is none."""
        until = time.monotonic() + self._schedule.load

        def time_budget() -> float:
            return 0.0 if self._stopping.is_set() else until - time.monotonic()

        return await self._executor.run(self._repository.load, table, self._make_index, time_budget)

    async def drop(self, collection: str, version: Version) -> int:
        """Remove the snapshots of a collection that are of versions before `version`; return how many.

        Raises:
            ServiceUnavailableError: they cannot be removed now.
        """
        return await self._executor.run(self._repository.drop_before, collection, version)

    @asynccontextmanager
    async def saving(self, feed: ChangeFeed, replicas: Replicas) -> AsyncIterator[None]:
        """Save what `replicas` hold while the block runs, and after it what is not saved yet, as time allows."""
        task = asyncio.create_task(self._run(feed, replicas))
        try:
            yield
        finally:
            self._until = time.monotonic() + self._schedule.stop
            self._stopping.set()
            await asyncio.wait([task], timeout=self._schedule.stop)
            task.cancel()
            for replica in replicas.all():
                await self._save_last(replica)

    async def _run(self, feed: ChangeFeed, replicas: Replicas) -> None:
        known: set[str] = set()
        cleanup_at = 0.0
        while not self._stopping.is_set():
            for replica in replicas.all():
                if self._is_due(replica) and not self._stopping.is_set():
                    await self._save(replica)
            now = {replica.collection for replica in replicas.all()}
            if known - now or time.monotonic() >= cleanup_at:
                await self._remove_dropped(feed)
                cleanup_at = time.monotonic() + CLEANUP_SECONDS
            known = now
            await self._wait(min(POLL_SECONDS, self._schedule.between))

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _is_due(self, replica: Replica) -> bool:
        index = cast(PortableIndex | None, replica.index)
        late = time.monotonic() >= self._not_before.get(replica.collection, 0.0)
        return index is not None and late and not self._repository.is_current(replica.collection, index)

    async def _save(self, replica: Replica) -> None:
        """Save the index, unless a process that shares the store has done so lately."""
        began = time.monotonic()
        try:
            await self._executor.run(self._save_older, replica, self._schedule.between)
        except (ServiceError, TimeoutError) as error:
            log.warning("no snapshot of %s is saved: %s", replica.collection, error)
        except Exception:
            log.exception("no snapshot of %s is saved", replica.collection)
        took = self._took[replica.collection] = time.monotonic() - began
        self._not_before[replica.collection] = time.monotonic() + max(self._schedule.between, took / MAX_SAVING_SHARE)

    async def _save_last(self, replica: Replica) -> None:
        """Save the index at the end if it can be done in time."""
        if self._took.get(replica.collection, 0.0) > self._until - time.monotonic():
            log.info("%s takes too long to be saved at the end", replica.collection)
            return
        self._not_before.clear()
        if self._is_due(replica):
            await self._save(replica)

    def _save_older(self, replica: Replica, seconds: float) -> None:
        """Save the index if the newest snapshot is older than that; one built anew is saved in any case."""
        collection, index = replica.collection, cast(PortableIndex | None, replica.index)
        if index is None or index.version is None:
            return
        old_enough = 0.0 if self._stopping.is_set() else seconds
        replaced = self._repository.was_replaced(collection, index)
        if replaced or self._repository.age_seconds(collection, index.version) > old_enough:
            self._repository.save(collection, index, lambda: self._until - time.monotonic())

    async def _remove_dropped(self, feed: ChangeFeed) -> None:
        """Remove the snapshots of collections that the store, asked after they were listed, does not have."""
        try:
            kept = await self._executor.run(self._repository.collections)
            for collection in kept - {table.collection for table in await feed.tables()}:
                log.info("the snapshots of %s, which was dropped, are removed", collection)
                await self._executor.run(self._repository.remove_all, collection)
        except ServiceError as error:
            log.warning("snapshots of dropped collections are not looked for now: %s", error)
        except Exception:
            log.exception("snapshots of dropped collections are not looked for now")
