"""What goes on behind the service: tidying tables, and removing media that no item refers to."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.common.concurrency.tasks import background_tasks, run_periodically
from services.common.errors import CollectionNotFoundError
from services.store.core.collections import Collections
from services.store.core.media_store import MediaStore
from services.store.core.rows import Part
from services.store.core.table import Table, WriteConflictError

log = logging.getLogger(__name__)

CANDIDATES_AT_A_TIME = 100_000


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what is not needed any more is kept."""

    deletions: timedelta
    versions: timedelta
    media: timedelta


class GarbageCollector:
    """Tidies tables and media, once or again and again."""

    def __init__(
        self, collections: Collections, media: MediaStore, retention: Retention, *, clock: Callable[[], datetime]
    ) -> None:
        self._collections = collections
        self._media = media
        self._retention = retention
        self._clock = clock

    async def tidy_tables(self) -> None:
        """Tidy every table; one that cannot be is logged and left to the next time."""
        now = self._clock()
        for table in await self._collections.tables():
            try:
                await table.tidy(now - self._retention.deletions, now - self._retention.versions)
            except (CollectionNotFoundError, WriteConflictError):
                continue  # dropped since, or another process was at it
            except Exception:
                log.exception("cannot tidy %s", table.definition.name)

    async def collect_media(self) -> int:
        """Delete the media long unused that no row refers to; return how many."""
        return sum([1 async for _ in self.unreferenced(remove=True)])

    async def unreferenced(self, *, remove: bool) -> AsyncGenerator[str, None]:
        """Yield the hashes of the media long unused that no row refers to, each once it is deleted where so asked.

        Where any table cannot be read nothing is deleted. A row written meanwhile refers to media it has claimed, which
        are not long unused.
        """
        cutoff = self._clock() - self._retention.media
        async for candidates in _lots(self._media.unused_since(cutoff), CANDIDATES_AT_A_TIME):
            for table in await self._collections.tables():
                await _forget_referred(table, candidates)
            for sha256 in sorted(candidates):
                if not remove or await self._media.delete(sha256, cutoff):
                    yield sha256

    @asynccontextmanager
    async def running(self, *, tidy_seconds: float, collect_seconds: float) -> AsyncIterator[None]:
        """Do both at intervals while the block runs."""
        tidy = run_periodically(self.tidy_tables, tidy_seconds, "tidying tables")
        collect = run_periodically(self.collect_media, collect_seconds, "collecting unused media")
        async with background_tasks(tidy, collect):
            yield


async def _forget_referred(table: Table, candidates: set[str]) -> None:
    """Take out of `candidates` what a row of `table` refers to, now or as of a tag."""
    try:
        tagged = {await table.as_of(version) for version in set((await table.tags()).values())}
        for snapshot in (table, *tagged):
            async for rows in snapshot.scan(frozenset({Part.MEDIA})):
                candidates.difference_update(row.media.sha256 for row in rows if row.media)
    except CollectionNotFoundError:
        return  # dropped since, with its references


async def _lots(hashes: AsyncIterator[str], size: int) -> AsyncIterator[set[str]]:
    lot: set[str] = set()
    async for sha256 in hashes:
        lot.add(sha256)
        if len(lot) == size:
            yield lot
            lot = set()
    if lot:
        yield lot
