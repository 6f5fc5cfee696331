"""Proof that the rows of a collection agree with their media and vectors, or where they do not."""

import asyncio
import hashlib
import random
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import TypeAlias, cast

import numpy as np

from services.common.concurrency.tasks import gather
from services.common.errors import ArgumentError
from services.common.vectors import Matrix, Metric
from services.common.versions import Version
from services.store.core.collections import Collections
from services.store.core.errors import MediaCorruptError, MediaNotFoundError
from services.store.core.media_store import MediaStore
from services.store.core.mutations import vector_source
from services.store.core.rows import EVERYTHING, CollectionSchema, Media, Part, Row, Space
from services.store.core.table import Table
from services.store.core.validation import in_order

MAX_VECTOR_SAMPLE = 10_000
MEDIA_AT_A_TIME = 8
MEDIA_A_LOT = 64
READ_BYTES = 2**20
SOON = timedelta(days=1)


class FindingKind(Enum):
    """What can be wrong; see `medley.v1.FindingKind`."""

    MEDIA_MISSING = "media_missing"
    MEDIA_DAMAGED = "media_damaged"
    MEDIA_UNREFERENCED = "media_unreferenced"
    VECTOR_INVALID = "vector_invalid"
    VECTOR_MISSING = "vector_missing"
    SPACES_DIFFER = "spaces_differ"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong; what does not concern it is empty."""

    kind: FindingKind
    collection: str = ""
    id: str = ""
    space: str = ""
    sha256: str = ""
    detail: str = ""
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class CheckedTable:
    """What is looked at: the rows of a version, and how many."""

    version: Version
    rows: int


@dataclass(frozen=True, slots=True)
class CheckedRows:
    """Some rows, and for each a number with bit i set if it has a vector in the collection's space i."""

    ids: Sequence[str]
    spaces: Sequence[int]


@dataclass(frozen=True, slots=True, eq=False)
class CheckedVectors:
    """A row of the sample with its vectors by space."""

    id: str
    vectors: Mapping[str, Matrix]


@dataclass(frozen=True, slots=True)
class CheckedMedia:
    """Objects looked at so far, those read of them, and the bytes of these."""

    objects: int
    objects_read: int
    bytes_read: int


Checked: TypeAlias = CheckedTable | CheckedRows | CheckedVectors | CheckedMedia | Finding


@dataclass(frozen=True, slots=True)
class CheckWish:
    """What is to be looked at closely: how many `media` are read (None: all), and `vectors` handed out.

    `remove_damaged` removes objects whose bytes are not what their name says, so that they can be stored again.
    """

    media: int | None = 0
    vectors: int = 0
    remove_damaged: bool = False


class IntegrityCheck:
    """Checks collections. Writers go on meanwhile: what they change is not taken for damage."""

    def __init__(self, collections: Collections, media: MediaStore, *, clock: Callable[[], datetime]) -> None:
        self._collections = collections
        self._media = media
        self._clock = clock

    async def check(self, collection: str, wish: CheckWish) -> AsyncGenerator[Checked, None]:
        """Yield what is looked at, first the version, then the rows and vectors, then the media; and what is wrong.

        Raises:
            CollectionNotFoundError: no such collection.
            ArgumentError: a sample of a size that is not allowed.
        """
        _check_sizes(wish)
        table = await self._collections.table(collection)
        referred: dict[str, list[tuple[str, Media]]] = defaultdict(list)
        sample = _Sample(wish.vectors)
        async with aclosing(_rows_as_of_now(table)) as batches:
            async for version, rows in batches:
                if version is not None:
                    yield CheckedTable(Version(table.definition.uid, version), await table.count())
                for row in rows:
                    if row.media is not None:
                        referred[row.media.sha256].append((row.id, row.media))
                    sample.offer(row)
                yield CheckedRows([row.id for row in rows], [_mask(table.definition, row) for row in rows])
                for finding in _row_findings(table.definition, rows):
                    yield finding
        for row in sample.rows:
            yield CheckedVectors(row.id, row.vectors)
        async with aclosing(self._check_media(table, referred, wish)) as found:
            async for each in found:
                yield each

    async def _check_media(
        self, table: Table, referred: Mapping[str, Sequence[tuple[str, Media]]], wish: CheckWish
    ) -> AsyncGenerator[Checked, None]:
        names = list(referred)
        to_read = set(names if wish.media is None else random.sample(names, min(wish.media, len(names))))
        progress = CheckedMedia(0, 0, 0)
        turns = asyncio.Semaphore(MEDIA_AT_A_TIME)
        for start in range(0, len(names), MEDIA_A_LOT):
            lot = names[start : start + MEDIA_A_LOT]
            outcomes = await gather(
                [self._look(turns, sha256, referred[sha256][0][1].size_bytes, sha256 in to_read) for sha256 in lot]
            )
            for sha256, outcome in zip(lot, outcomes, strict=True):
                progress = CheckedMedia(
                    progress.objects + 1,
                    progress.objects_read + (sha256 in to_read and outcome.kind is not FindingKind.MEDIA_MISSING),
                    progress.bytes_read + outcome.bytes_read,
                )
                for finding in await self._media_findings(table, referred[sha256], sha256, outcome, wish):
                    yield finding
            yield progress

    async def _look(self, turns: asyncio.Semaphore, sha256: str, size_bytes: int, read: bool) -> "_Look":
        async with turns:
            try:
                actual = await self._media.size_bytes(sha256)
                if actual != size_bytes:
                    return _Look(FindingKind.MEDIA_DAMAGED, f"have {actual} bytes, the row says {size_bytes}")
                return await self._read(sha256, actual) if read else _Look()
            except MediaCorruptError:
                return _Look(FindingKind.MEDIA_DAMAGED, "are not the bytes that were stored")
            except MediaNotFoundError:
                return _Look(FindingKind.MEDIA_MISSING, "are not there")

    async def _read(self, sha256: str, size_bytes: int) -> "_Look":
        digest, read = hashlib.sha256(), 0
        while read < size_bytes:
            chunk = await self._media.read(sha256, read, READ_BYTES)
            if not chunk:
                break
            await asyncio.to_thread(digest.update, chunk)
            read += len(chunk)
        if digest.hexdigest() != sha256:
            detail = f"have bytes of SHA-256 {digest.hexdigest()}"
            return _Look(FindingKind.MEDIA_DAMAGED, detail, read)
        return _Look(bytes_read=read)

    async def _media_findings(
        self, table: Table, referring: Sequence[tuple[str, Media]], sha256: str, look: "_Look", wish: CheckWish
    ) -> list[Finding]:
        if look.kind is None:
            return []
        still = await self._still_referring(table, [row_id for row_id, _ in referring], sha256)
        if still and look.kind is FindingKind.MEDIA_DAMAGED and wish.remove_damaged:
            await self._media.delete(sha256, self._clock() + SOON)
        return [
            Finding(look.kind, table.definition.name, row_id, sha256=sha256, detail=f"media {look.detail}")
            for row_id in still
        ]

    async def _still_referring(self, table: Table, ids: Sequence[str], sha256: str) -> list[str]:
        """Return those of `ids` whose rows refer to the object now: others were written since they were looked at."""
        found = (await table.get(ids, frozenset({Part.MEDIA}))).rows
        return [row_id for row_id, row in found.items() if row.media and row.media.sha256 == sha256]


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look at an object showed; without a kind nothing is wrong."""

    kind: FindingKind | None = None
    detail: str = ""
    bytes_read: int = 0


@dataclass(slots=True)
class _Sample:
    """`size` of the rows offered, each as likely as any other."""

    size: int
    offered: int = 0
    rows: list[Row] = field(default_factory=list)

    def offer(self, row: Row) -> None:
        if not row.vectors:
            return
        self.offered += 1
        if len(self.rows) < self.size:
            self.rows.append(row)
        elif (place := random.randrange(self.offered)) < self.size:
            self.rows[place] = row


def vector_problem(space: Space, vector: Matrix) -> str:
    """Return what is wrong with a vector of `space`, "" for nothing."""
    if vector.shape != (space.dimensions,):
        return f"has {vector.size} dimensions, the space {space.dimensions}"
    if not np.isfinite(vector).all():
        return "has a NaN or infinite component"
    if space.metric is Metric.COSINE and not vector.any():
        return "has length zero, which cosine cannot compare"
    return ""


async def _rows_as_of_now(table: Table) -> AsyncGenerator[tuple[int | None, list[Row]], None]:
    """Yield all rows of the newest commit; with the first of them, maybe none, that commit."""
    async with aclosing(cast(AsyncGenerator[list[Row]], table.scan(EVERYTHING))) as scan:
        version = table.version  # nothing runs between this and the scan's first step
        yield version, await anext(scan, [])
        async for rows in scan:
            yield None, rows


def _row_findings(definition: CollectionSchema, rows: Sequence[Row]) -> Iterator[Finding]:
    for row in rows:
        actual = in_order(definition, row.vectors)
        if actual != row.spaces:
            detail = (
                f"the row names {', '.join(row.spaces) or 'no space'}, has vectors in {', '.join(actual) or 'none'}"
            )
            yield Finding(FindingKind.SPACES_DIFFER, definition.name, row.id, detail=detail)
        for space in definition.spaces:
            vector = row.vectors.get(space.name)
            if vector is not None and (problem := vector_problem(space, vector)):
                detail = f"vector {problem}"
                yield Finding(FindingKind.VECTOR_INVALID, definition.name, row.id, space.name, detail=detail)
            elif vector is None and space.model and (source := vector_source(space.sources, row)):
                detail = f"has {source[0].value} and no vector of it"
                yield Finding(FindingKind.VECTOR_MISSING, definition.name, row.id, space.name, detail=detail)


def _mask(definition: CollectionSchema, row: Row) -> int:
    return sum(1 << place for place, space in enumerate(definition.spaces) if space.name in row.vectors)


def _check_sizes(wish: CheckWish) -> None:
    if wish.media is not None and wish.media < 0:
        raise ArgumentError("media.objects", wish.media, "must not be negative")
    if not 0 <= wish.vectors <= MAX_VECTOR_SAMPLE:
        raise ArgumentError("vector_sample", wish.vectors, f"must be 0 to {MAX_VECTOR_SAMPLE}")
