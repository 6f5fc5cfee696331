"""Checks that the rows of a collection agree with their media and vectors, and reports where they do not."""

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
from services.store.core.rows import ALL_FIELDS, CollectionSchema, Media, Row, RowField, Space
from services.store.core.table import Table
from services.store.core.validation import space_names

MAX_VECTOR_SAMPLE = 10_000
MAX_CONCURRENT_READS = 8
MEDIA_BATCH = 64
READ_BYTES = 2**20
ANY_AGE = timedelta(days=1)  # added to the time now: deletes however recently used


class FindingKind(Enum):
    """Kinds of findings; see `medley.v1.FindingKind`."""

    MEDIA_MISSING = "media_missing"
    MEDIA_DAMAGED = "media_damaged"
    MEDIA_UNREFERENCED = "media_unreferenced"
    VECTOR_INVALID = "vector_invalid"
    VECTOR_MISSING = "vector_missing"
    SPACES_DIFFER = "spaces_differ"


@dataclass(frozen=True, slots=True)
class Finding:
    """One inconsistency; fields that do not apply are empty."""

    kind: FindingKind
    collection: str = ""
    id: str = ""
    space: str = ""
    sha256: str = ""
    detail: str = ""
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class CheckedTable:
    """The version that is checked, and its number of rows."""

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
    """How many objects were checked so far, how many of them were read, and how many bytes."""

    objects: int
    objects_read: int
    bytes_read: int


CheckOutput: TypeAlias = CheckedTable | CheckedRows | CheckedVectors | CheckedMedia | Finding


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """How many `media` to read and hash (None: all), and how many sampled `vectors` to return.

    `remove_damaged` deletes objects whose bytes do not match their hash, so that they can be stored again.
    """

    media: int | None = 0
    vectors: int = 0
    remove_damaged: bool = False


class IntegrityCheck:
    """Checks collections. Concurrent writes are not reported as damage."""

    def __init__(self, collections: Collections, media: MediaStore, *, clock: Callable[[], datetime]) -> None:
        self._collections = collections
        self._media = media
        self._clock = clock

    async def check(self, collection: str, options: CheckOptions) -> AsyncGenerator[CheckOutput, None]:
        """Yield the version, then the rows, the sampled vectors and the progress of media; and findings in between.

        Raises:
            CollectionNotFoundError: there is no such collection.
            ArgumentError: the size of a sample is out of range.
        """
        _validate_options(options)
        table = await self._collections.table(collection)
        references: dict[str, list[tuple[str, Media]]] = defaultdict(list)
        sample = _Reservoir(options.vectors)
        async with aclosing(_scan_newest(table)) as batches:
            async for version, rows in batches:
                if version is not None:
                    yield CheckedTable(Version(table.schema.uid, version), await table.count())
                for row in rows:
                    if row.media is not None:
                        references[row.media.sha256].append((row.id, row.media))
                    sample.offer(row)
                yield CheckedRows([row.id for row in rows], [_mask(table.schema, row) for row in rows])
                for finding in _row_findings(table.schema, rows):
                    yield finding
        for row in sample.rows:
            yield CheckedVectors(row.id, row.vectors)
        async with aclosing(self._check_media(table, references, options)) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def _check_media(
        self, table: Table, references: Mapping[str, Sequence[tuple[str, Media]]], options: CheckOptions
    ) -> AsyncGenerator[CheckOutput, None]:
        names = list(references)
        to_read = set(names if options.media is None else random.sample(names, min(options.media, len(names))))
        progress = CheckedMedia(0, 0, 0)
        semaphore = asyncio.Semaphore(MAX_CONCURRENT_READS)
        for start in range(0, len(names), MEDIA_BATCH):
            batch = names[start : start + MEDIA_BATCH]
            outcomes = await gather(
                [
                    self._check_object(semaphore, sha256, references[sha256][0][1].size_bytes, sha256 in to_read)
                    for sha256 in batch
                ]
            )
            for sha256, outcome in zip(batch, outcomes, strict=True):
                progress = CheckedMedia(
                    progress.objects + 1,
                    progress.objects_read + (sha256 in to_read and outcome.kind is not FindingKind.MEDIA_MISSING),
                    progress.bytes_read + outcome.bytes_read,
                )
                for finding in await self._media_findings(table, references[sha256], sha256, outcome, options):
                    yield finding
            yield progress

    async def _check_object(
        self, semaphore: asyncio.Semaphore, sha256: str, size_bytes: int, read: bool
    ) -> "_ObjectCheck":
        async with semaphore:
            try:
                actual = await self._media.size_bytes(sha256)
                if actual != size_bytes:
                    return _ObjectCheck(FindingKind.MEDIA_DAMAGED, f"have {actual} bytes, the row says {size_bytes}")
                return await self._check_bytes(sha256, actual) if read else _ObjectCheck()
            except MediaCorruptError:
                return _ObjectCheck(FindingKind.MEDIA_DAMAGED, "are not the bytes that were stored")
            except MediaNotFoundError:
                return _ObjectCheck(FindingKind.MEDIA_MISSING, "are not there")

    async def _check_bytes(self, sha256: str, size_bytes: int) -> "_ObjectCheck":
        digest, read = hashlib.sha256(), 0
        while read < size_bytes:
            chunk = await self._media.read(sha256, read, READ_BYTES)
            if not chunk:
                break
            await asyncio.to_thread(digest.update, chunk)
            read += len(chunk)
        if digest.hexdigest() != sha256:
            detail = f"have bytes of SHA-256 {digest.hexdigest()}"
            return _ObjectCheck(FindingKind.MEDIA_DAMAGED, detail, read)
        return _ObjectCheck(bytes_read=read)

    async def _media_findings(
        self,
        table: Table,
        referring: Sequence[tuple[str, Media]],
        sha256: str,
        checked: "_ObjectCheck",
        options: CheckOptions,
    ) -> list[Finding]:
        if checked.kind is None:
            return []
        referring_ids = await self._filter_referring(table, [row_id for row_id, _ in referring], sha256)
        if referring_ids and checked.kind is FindingKind.MEDIA_DAMAGED and options.remove_damaged:
            await self._media.delete(sha256, self._clock() + ANY_AGE)
        return [
            Finding(checked.kind, table.schema.name, row_id, sha256=sha256, detail=f"media {checked.detail}")
            for row_id in referring_ids
        ]

    async def _filter_referring(self, table: Table, ids: Sequence[str], sha256: str) -> list[str]:
        """Return those of `ids` whose rows still refer to the object: the others were written since the scan."""
        found = (await table.get(ids, frozenset({RowField.MEDIA}))).rows
        return [row_id for row_id, row in found.items() if row.media and row.media.sha256 == sha256]


@dataclass(frozen=True, slots=True)
class _ObjectCheck:
    """The result of checking an object; without a kind nothing is wrong."""

    kind: FindingKind | None = None
    detail: str = ""
    bytes_read: int = 0


@dataclass(slots=True)
class _Reservoir:
    """A uniform random sample of `size` of the rows offered (reservoir sampling)."""

    size: int
    offered: int = 0
    rows: list[Row] = field(default_factory=list)

    def offer(self, row: Row) -> None:
        if not row.vectors:
            return
        self.offered += 1
        if len(self.rows) < self.size:
            self.rows.append(row)
        elif (index := random.randrange(self.offered)) < self.size:
            self.rows[index] = row


def vector_problem(space: Space, vector: Matrix) -> str:
    """Return what is wrong with a vector of `space`, "" for nothing."""
    if vector.shape != (space.dimensions,):
        return f"has {vector.size} dimensions, the space {space.dimensions}"
    if not np.isfinite(vector).all():
        return "has a NaN or infinite component"
    if space.metric is Metric.COSINE and not vector.any():
        return "has length zero, which cosine cannot compare"
    return ""


async def _scan_newest(table: Table) -> AsyncGenerator[tuple[int | None, list[Row]], None]:
    """Yield all rows of the newest commit; with the first batch, which may be empty, the number of that commit."""
    async with aclosing(cast(AsyncGenerator[list[Row]], table.scan(ALL_FIELDS))) as scan:
        version = table.version  # nothing runs between this and the scan's first step
        yield version, await anext(scan, [])
        async for rows in scan:
            yield None, rows


def _row_findings(schema: CollectionSchema, rows: Sequence[Row]) -> Iterator[Finding]:
    for row in rows:
        actual = space_names(schema, row.vectors)
        if actual != row.spaces:
            detail = (
                f"the row names {', '.join(row.spaces) or 'no space'}, has vectors in {', '.join(actual) or 'none'}"
            )
            yield Finding(FindingKind.SPACES_DIFFER, schema.name, row.id, detail=detail)
        for space in schema.spaces:
            vector = row.vectors.get(space.name)
            if vector is not None and (problem := vector_problem(space, vector)):
                detail = f"vector {problem}"
                yield Finding(FindingKind.VECTOR_INVALID, schema.name, row.id, space.name, detail=detail)
            elif vector is None and space.model and (source := vector_source(space.sources, row)):
                detail = f"has {source[0].value} and no vector of it"
                yield Finding(FindingKind.VECTOR_MISSING, schema.name, row.id, space.name, detail=detail)


def _mask(schema: CollectionSchema, row: Row) -> int:
    return sum(1 << index for index, space in enumerate(schema.spaces) if space.name in row.vectors)


def _validate_options(options: CheckOptions) -> None:
    if options.media is not None and options.media < 0:
        raise ArgumentError("media.objects", options.media, "must not be negative")
    if not 0 <= options.vectors <= MAX_VECTOR_SAMPLE:
        raise ArgumentError("vector_sample", options.vectors, f"must be 0 to {MAX_VECTOR_SAMPLE}")
