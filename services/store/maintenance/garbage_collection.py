"""Background maintenance: optimizing tables, and removing media that no item refers to."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.common.concurrency.tasks import background_tasks, run_periodically
from services.common.errors import CollectionNotFoundError
from services.store.core.collections import Collections
from services.store.core.media_store import MediaStore
from services.store.core.rows import RowField
from services.store.core.table import Table, WriteConflictError

log = logging.getLogger(__name__)

CANDIDATE_BATCH = 100_000


@dataclass(frozen=True, slots=True)
class Retention:
    """How long deletions are known, old versions are kept, and media without a reference are kept."""

    deletions: timedelta
    versions: timedelta
    media: timedelta


class GarbageCollector:
    """Optimizes tables and removes unreferenced media, once or at intervals."""

    def __init__(
        self, collections: Collections, media: MediaStore, retention: Retention, *, clock: Callable[[], datetime]
    ) -> None:
        self._collections = collections
        self._media = media
        self._retention = retention
        self._clock = clock

    async def optimize_tables(self) -> None:
        """Optimize every table; log failures and go on to the next table."""
        now = self._clock()
        for table in await self._collections.tables():
            try:
                await table.optimize(now - self._retention.deletions, now - self._retention.versions)
            except (CollectionNotFoundError, WriteConflictError):
                continue  # dropped since, or another process is optimizing it
            except Exception:
                log.exception("cannot optimize %s", table.schema.name)

    async def collect_media(self) -> int:
        """Delete the media found by `find_unreferenced`; return how many."""
        return sum([1 async for _ in self.find_unreferenced(remove=True)])

    async def find_unreferenced(self, *, remove: bool) -> AsyncGenerator[str, None]:
        """Yield the hashes of media unused for the retention time that no row refers to; `remove` deletes each first.

        If any table cannot be read, nothing is deleted. Rows written in the meantime are safe: writing one touches its
        media.
        """
        cutoff = self._clock() - self._retention.media
        async for candidates in _batched(self._media.unused_since(cutoff), CANDIDATE_BATCH):
            for table in await self._collections.tables():
                await _discard_referenced(table, candidates)
            for sha256 in sorted(candidates):
                if not remove or await self._media.delete(sha256, cutoff):
                    yield sha256

    @asynccontextmanager
    async def running(self, *, optimize_seconds: float, collect_seconds: float) -> AsyncIterator[None]:
        """Do both at intervals while the block runs."""
        optimize = run_periodically(self.optimize_tables, optimize_seconds, "optimizing tables")
        collect = run_periodically(self.collect_media, collect_seconds, "collecting unused media")
        async with background_tasks(optimize, collect):
            yield


async def _discard_referenced(table: Table, candidates: set[str]) -> None:
    """Remove from `candidates` the media that a row of `table` refers to, in the newest version or a tagged one."""
    try:
        tagged = {await table.as_of(version) for version in set((await table.tags()).values())}
        for snapshot in (table, *tagged):
            async for rows in snapshot.scan(frozenset({RowField.MEDIA})):
                candidates.difference_update(row.media.sha256 for row in rows if row.media)
    except CollectionNotFoundError:
        return  # dropped since, with its references


async def _batched(hashes: AsyncIterator[str], size: int) -> AsyncIterator[set[str]]:
    batch: set[str] = set()
    async for sha256 in hashes:
        batch.add(sha256)
        if len(batch) == size:
            yield batch
            batch = set()
    if batch:
        yield batch
