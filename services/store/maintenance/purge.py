"""Purging deleted rows from all files, and their media unless other rows refer to them."""

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
from services.store.core.rows import NO_FIELDS, RowField
from services.store.core.table import Table
from services.store.core.validation import validate_batch_size, validate_sha256

MAX_WRITE_TIME = timedelta(seconds=60)
RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class PurgedMedia:
    """An object of a purge. `kept_by` is a row that refers to it, "" if the object is deleted."""

    sha256: str
    kept_by: str = ""


@dataclass(frozen=True, slots=True)
class PurgeResult:
    """The version after a purge, the tags that still contain one of the rows, and the outcome for each object."""

    version: Version
    tags: Sequence[str]
    media: Sequence[PurgedMedia]


class Purge:
    """Purges collections.

    An object is deleted only if it was last touched longer ago than any write takes. A write that touched it before
    then has committed its row, which is seen here; one that touches it later makes the deletion fail.
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

    async def purge(self, collection: str, ids: Sequence[str], sha256s: Sequence[str]) -> PurgeResult:
        """Remove all data of deleted rows; return what tags or other rows keep.

        Raises:
            ArgumentError: there are no ids or too many, one has a row, or a hash is invalid.
            CollectionNotFoundError: there is no such collection.
            OverloadedError: it conflicted too often with other writers.
        """
        validate_batch_size("ids", len(ids))
        hashes = list(dict.fromkeys(map(validate_sha256, sha256s)))
        table = await self._collections.table(collection)
        if existing := (await table.get(ids, NO_FIELDS)).rows:
            raise ArgumentError("ids", next(iter(existing)), "is the id of a row that exists")
        await retry_conflicts(table.purge)
        tags = [
            name for name, version in sorted((await table.tags()).items()) if await _contains_any(table, version, ids)
        ]
        kept = await self._purge_media(hashes)
        media = [PurgedMedia(sha256, kept.get(sha256, "")) for sha256 in sha256s]
        return PurgeResult(Version(table.schema.uid, table.version), tags, media)

    async def _purge_media(self, sha256s: Sequence[str]) -> dict[str, str]:
        """Delete the objects that no row refers to; return for each of the others a row that does."""
        kept: dict[str, str] = {}
        remaining = list(sha256s)
        while remaining:
            cutoff = self._clock() - MAX_WRITE_TIME
            kept |= await self._find_references(remaining)
            unreferenced = [sha256 for sha256 in remaining if sha256 not in kept]
            remaining = [sha256 for sha256 in unreferenced if not await self._delete(sha256, cutoff)]
            if remaining:
                await self._sleep(RETRY_SECONDS)
        return kept

    async def _delete(self, sha256: str, cutoff: datetime) -> bool:
        """Delete an object unless it was used since `cutoff`; return whether it does not exist any more."""
        if await self._media.delete(sha256, cutoff):
            return True
        try:
            await self._media.size_bytes(sha256)
        except MediaNotFoundError:
            return True
        return False

    async def _find_references(self, sha256s: Sequence[str]) -> dict[str, str]:
        """Return a row that refers to each of `sha256s`, if there is one, in the newest or a tagged version."""
        references: dict[str, str] = {}
        hashes = set(sha256s)
        for table in await self._collections.tables():
            try:
                for name, version in [("", 0), *(await table.tags()).items()]:
                    snapshot = await table.as_of(version) if version else table
                    where = f"{table.schema.name} as of {name}" if name else table.schema.name
                    async for rows in snapshot.scan(frozenset({RowField.MEDIA})):
                        found = [row for row in rows if row.media and row.media.sha256 in hashes]
                        references |= {row.media.sha256: f"{where}/items/{row.id}" for row in found if row.media}
            except CollectionNotFoundError:
                continue  # dropped since, with its references
        return references


async def _contains_any(table: Table, version: int, ids: Sequence[str]) -> bool:
    return bool((await (await table.as_of(version)).get(ids, NO_FIELDS)).rows)
