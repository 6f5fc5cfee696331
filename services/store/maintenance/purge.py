"""Removing rows for good: nothing of them is left, and the media they had go where nobody else refers to them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.common.errors import ArgumentError, CollectionNotFoundError
from services.common.versions import Version
from services.store.core.collections import Collections
from services.store.core.committer import retry_conflicts
from services.store.core.errors import MediaNotFoundError
from services.store.core.media_store import MediaStore
from services.store.core.rows import NOTHING, Part
from services.store.core.table import Table
from services.store.core.validation import check_number, checked_sha256

LONGEST_WRITE = timedelta(seconds=60)
PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class PurgedMedia:
    """What became of an object; `kept_by` says who refers to it, "" when it is gone."""

    sha256: str
    kept_by: str = ""


@dataclass(frozen=True, slots=True)
class Purged:
    """A purge that is done: the version after it, the tags that still hold one of the rows, and the media."""

    version: Version
    tags: Sequence[str]
    media: Sequence[PurgedMedia]


class Purge:
    """Purges collections.

    An object is deleted only if it was not used for longer than a write takes: whoever claimed it before that has
    committed a row that is seen here, and whoever claims it later keeps it.
    """

    def __init__(
        self,
        collections: Collections,
        media: MediaStore,
        *,
        clock: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._collections = collections
        self._media = media
        self._clock = clock
        self._sleep = sleep

    async def purge(self, collection: str, ids: Sequence[str], sha256s: Sequence[str]) -> Purged:
        """See that nothing is left of removed rows; return what is, because of a tag or of another row.

        Raises:
            ArgumentError: no ids, too many, one whose row is there, or a bad hash.
            CollectionNotFoundError: no such collection.
            OverloadedError: writers came between again and again.
        """
        check_number("ids", len(ids))
        wanted = list(dict.fromkeys(map(checked_sha256, sha256s)))
        table = await self._collections.table(collection)
        if there := (await table.get(ids, NOTHING)).rows:
            raise ArgumentError("ids", next(iter(there)), "is the id of a row that is there")
        await retry_conflicts(table.purge)
        tags = [name for name, version in sorted((await table.tags()).items()) if await _holds(table, version, ids)]
        kept = await self._purge_media(wanted)
        media = [PurgedMedia(sha256, kept.get(sha256, "")) for sha256 in sha256s]
        return Purged(Version(table.definition.uid, table.version), tags, media)

    async def _purge_media(self, sha256s: Sequence[str]) -> dict[str, str]:
        """Delete the objects that nobody refers to; return who refers to the others."""
        kept: dict[str, str] = {}
        left = list(sha256s)
        while left:
            cutoff = self._clock() - LONGEST_WRITE
            kept |= await self._referring(left)
            free = [sha256 for sha256 in left if sha256 not in kept]
            left = [sha256 for sha256 in free if not await self._gone(sha256, cutoff)]
            if left:
                await self._sleep(PAUSE_SECONDS)
        return kept

    async def _gone(self, sha256: str, cutoff: datetime) -> bool:
        if await self._media.delete(sha256, cutoff):
            return True
        try:
            await self._media.size_bytes(sha256)
        except MediaNotFoundError:
            return True
        return False

    async def _referring(self, sha256s: Sequence[str]) -> dict[str, str]:
        """Return for each of `sha256s` that any row of any collection refers to, now or as of a tag, whose it is."""
        referring: dict[str, str] = {}
        wanted = set(sha256s)
        for table in await self._collections.tables():
            try:
                for name, version in [("", 0), *(await table.tags()).items()]:
                    snapshot = await table.as_of(version) if version else table
                    where = f"{table.definition.name} as of {name}" if name else table.definition.name
                    async for rows in snapshot.scan(frozenset({Part.MEDIA})):
                        found = [row for row in rows if row.media and row.media.sha256 in wanted]
                        referring |= {row.media.sha256: f"{where}/items/{row.id}" for row in found if row.media}
            except CollectionNotFoundError:
                continue  # dropped since, with its references
        return referring


async def _holds(table: Table, version: int, ids: Sequence[str]) -> bool:
    return bool((await (await table.as_of(version)).get(ids, NOTHING)).rows)
