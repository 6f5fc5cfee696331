"""Media in an S3 bucket.

Keys:
- `media/{aa}/{sha256}`: an object. Beside it `{sha256}.used`, empty, is rewritten each time the object is used again:
  the later time of the two is that of the last use.
- `incoming/{upload}/{number}`: parts of a large upload, whose hash is not known yet.
- `collecting/{sha256}.{number}`: a marker that a process is about to delete an object.

S3 has no locks. A process that deletes an object writes the marker first and then reads the time of the last use; one
that uses an object writes that time first and then looks for markers. So at least one of the two sees the other, and no
object is used between being found unused and being deleted.
"""

import asyncio
import hashlib
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextvars import Context
from datetime import UTC, datetime, timedelta
from itertools import groupby
from uuid import uuid4

from services.common.concurrency.executors import DeadlineExecutor, consume_exception
from services.common.deadlines import remaining_seconds
from services.common.errors import ServiceUnavailableError
from services.common.s3.bucket import PAGE, ObjectInfo, S3Bucket
from services.common.s3.errors import S3_ERRORS, NoSuchKeyError
from services.store.core.errors import MediaCorruptError, MediaNotFoundError
from services.store.core.media_store import ExpectedUpload, StoredObject, validate_upload

log = logging.getLogger(__name__)

PART_BYTES = 8 * 2**20  # S3 composes an object of at most 10,000 parts of at least 5 MiB
SMALL_BYTES = 2**20
MAX_LARGE_UPLOADS = 32  # concurrent uploads of more than that: each may hold a part in memory
STALE_PARTS_AGE = timedelta(days=1)
STALE_MARKERS_AGE = timedelta(hours=1)
MAX_DELETION_SECONDS = 60.0  # far below STALE_MARKERS_AGE; a deletion that takes longer gives up
TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 0.05
_TIME_RESOLUTION = timedelta(seconds=1)  # of the times that S3 reports


class S3Media:
    """`MediaStore` and `MediaLinks` in a bucket, shared by several processes.

    `verified_share` is the share of reads of whole objects whose bytes are compared with their hash.
    """

    def __init__(self, bucket: S3Bucket, executor: DeadlineExecutor, *, verified_share: float) -> None:
        self._bucket = bucket
        self._executor = executor
        self._verified_share = verified_share
        self._deletions = _DeletionMarkers(bucket, executor)
        self._large_uploads = asyncio.Semaphore(MAX_LARGE_UPLOADS)

    async def open(self) -> None:
        """Remove the uploads and markers of processes that crashed."""
        for folder, age in (("incoming/", STALE_PARTS_AGE), ("collecting/", STALE_MARKERS_AGE)):
            stale = [path async for path in self._older_than(folder, datetime.now(UTC) - age)]
            await self._executor.run(self._bucket.remove_all, stale)
        try:
            await self._executor.run(self._bucket.abort_uploads, "media/", datetime.now(UTC) - STALE_PARTS_AGE)
        except (ServiceUnavailableError, *S3_ERRORS) as error:
            log.warning("cannot look for unfinished uploads (%s): set a lifecycle rule that aborts them", error)

    async def put(self, chunks: AsyncIterator[bytes], expected: ExpectedUpload) -> StoredObject:
        upload = _Upload(self._bucket, self._executor, self._large_uploads)
        try:
            async for chunk in chunks:
                await upload.append(chunk)
            stored = validate_upload(upload.stored, expected)
            await self._store(upload, stored.sha256)
            return stored
        finally:
            await asyncio.shield(upload.discard())

    async def touch(self, sha256s: Collection[str]) -> Mapping[str, int]:
        await asyncio.gather(*(self._executor.run(self._bucket.put, _usage_path(sha256), b"") for sha256 in sha256s))
        await self._wait_for_deletions(sha256s)
        entries = await asyncio.gather(*(self._executor.run(self._look_up_touched, sha256) for sha256 in sha256s))
        return {sha256: entry.size_bytes for sha256, entry in zip(sha256s, entries, strict=True) if entry}

    async def size_bytes(self, sha256: str) -> int:
        entry = await self._executor.run(self._bucket.look_up, _path(sha256))
        if entry is None:
            raise MediaNotFoundError(sha256)
        return entry.size_bytes

    async def read(self, sha256: str, offset: int, length: int) -> bytes:
        if length <= 0:
            await self.size_bytes(sha256)
            return b""
        return await self._executor.run(self._read, sha256, offset, length)

    async def unused_since(self, moment: datetime) -> AsyncGenerator[str, None]:
        after = ""
        while entries := await self._executor.run(self._bucket.page, "media/", after):
            whole = _whole_groups(entries)
            for sha256 in _unused(whole, moment):
                yield sha256
            after = whole[-1].path

    async def delete(self, sha256: str, unused_since: datetime) -> bool:
        return await self._executor.run(self._delete, sha256, unused_since)

    async def url(self, sha256: str, seconds: int, mime_type: str) -> str:
        await self.size_bytes(sha256)
        return await self._executor.run(self._bucket.url, _path(sha256), seconds, mime_type)

    async def _store(self, upload: "_Upload", sha256: str) -> None:
        """Write the object under its hash; again if another process has deleted an older copy in the meantime."""
        while True:
            await upload.finish(sha256)
            if not await self._wait_for_deletions([sha256]):
                return
            if await self._executor.run(self._bucket.look_up, _path(sha256)):
                return

    async def _wait_for_deletions(self, sha256s: Collection[str]) -> bool:
        """Wait until no process is about to delete one of the objects; return whether any was.

        Raises:
            ServiceUnavailableError: a deletion takes too long, because its process is slow or has crashed.
        """
        waited = False
        until = time.monotonic() + remaining_seconds(TIMEOUT_SECONDS)
        while busy := await self._deletions.read() & set(sha256s):
            if time.monotonic() > until:
                raise ServiceUnavailableError("object store", f"is about to delete {min(busy)!r}")
            waited = True
            await asyncio.sleep(POLL_SECONDS)
        return waited

    def _look_up_touched(self, sha256: str) -> ObjectInfo | None:
        entry = self._bucket.look_up(_path(sha256))
        if entry is None:
            self._bucket.remove(_usage_path(sha256))
        return entry

    def _read(self, sha256: str, offset: int, length: int) -> bytes:
        try:
            result = self._bucket.get(_path(sha256), offset, length)
        except NoSuchKeyError as error:
            raise MediaNotFoundError(sha256) from error
        whole = offset == 0 and len(result.content) == result.object_bytes
        if whole and random.random() < self._verified_share:
            _verify(sha256, result.content)
        return result.content

    def _delete(self, sha256: str, unused_since: datetime) -> bool:
        marker, began = f"collecting/{sha256}.{uuid4().hex}", time.monotonic()
        self._bucket.put(marker, b"")
        try:
            uses = [
                entry.written for path in (_path(sha256), _usage_path(sha256)) if (entry := self._bucket.look_up(path))
            ]
            if (
                not uses
                or max(uses) + _TIME_RESOLUTION > unused_since
                or time.monotonic() - began > MAX_DELETION_SECONDS
            ):
                return False
            self._bucket.remove_all([_path(sha256), _usage_path(sha256)])
            return True
        finally:
            self._bucket.remove(marker)

    async def _older_than(self, folder: str, moment: datetime) -> AsyncGenerator[str, None]:
        for entry in await self._executor.run(lambda: list(self._bucket.entries(folder))):
            if entry.written < moment:
                yield entry.path


class _DeletionMarkers:
    """Reads the deletion markers. Calls that arrive while a listing is in progress share the next one."""

    def __init__(self, bucket: S3Bucket, executor: DeadlineExecutor) -> None:
        self._bucket = bucket
        self._executor = executor
        self._current: asyncio.Task[set[str]] | None = None
        self._next: asyncio.Task[set[str]] | None = None

    async def read(self) -> set[str]:
        """Return the hashes of the objects about to be deleted, listed after the call began."""
        if self._next is None:  # in an empty context: other callers share it, and this one's deadline is not theirs
            self._next = asyncio.create_task(self._list_after(self._current), context=Context())
            self._next.add_done_callback(consume_exception)
        return await asyncio.shield(self._next)

    async def _list_after(self, current: "asyncio.Task[set[str]] | None") -> set[str]:
        if current is not None:
            await asyncio.wait([current])
        self._current, self._next = self._next, None
        return await self._executor.run(self._list)

    def _list(self) -> set[str]:
        cutoff = datetime.now(UTC) - STALE_MARKERS_AGE
        return {_hash_of(entry) for entry in self._bucket.entries("collecting/") if entry.written > cutoff}


class _Upload:
    """An upload in progress: the last bytes are in memory, those before in one object per part."""

    def __init__(self, bucket: S3Bucket, executor: DeadlineExecutor, large_uploads: asyncio.Semaphore) -> None:
        self._bucket = bucket
        self._executor = executor
        self._large_uploads = large_uploads
        self._is_large = False
        self._folder = f"incoming/{uuid4().hex}"
        self._parts: list[str] = []
        self._buffer = bytearray()
        self._digest = hashlib.sha256()
        self._size = 0

    @property
    def stored(self) -> StoredObject:
        """The hash and size of the bytes so far."""
        return StoredObject(self._digest.hexdigest(), self._size)

    async def append(self, chunk: bytes) -> None:
        if len(self._buffer) + len(chunk) > SMALL_BYTES and not self._is_large:
            self._is_large = await self._large_uploads.acquire()
        self._digest.update(chunk)
        self._size += len(chunk)
        self._buffer += chunk
        while len(self._buffer) > PART_BYTES:
            part = bytes(self._buffer[:PART_BYTES])
            del self._buffer[:PART_BYTES]
            await self._store_part(part)

    async def finish(self, sha256: str) -> None:
        """Write the object under its hash."""
        if not self._parts:
            await self._executor.run(self._bucket.put, _path(sha256), bytes(self._buffer))
            return
        if self._buffer:
            await self._store_part(bytes(self._buffer))
            self._buffer.clear()
        seconds = self._bucket.compose_seconds(len(self._parts))
        await self._executor.run_within(seconds, self._bucket.compose, _path(sha256), self._parts)

    async def discard(self) -> None:
        """Remove the parts; those that cannot be removed now are removed at a later start."""
        if self._is_large:
            self._large_uploads.release()
        if self._parts:
            try:
                await self._executor.run(self._bucket.remove_all, self._parts)
            except ServiceUnavailableError:
                log.warning("parts of an upload are left under %s", self._folder)

    async def _store_part(self, part: bytes) -> None:
        path = f"{self._folder}/{len(self._parts):05d}"
        self._parts.append(path)
        await self._executor.run(self._bucket.put, path, part)


def _path(sha256: str) -> str:
    return f"media/{sha256[:2]}/{sha256}"


def _usage_path(sha256: str) -> str:
    return f"{_path(sha256)}.used"


def _hash_of(entry: ObjectInfo) -> str:
    return entry.path.rpartition("/")[2].partition(".")[0]


def _whole_groups(entries: Sequence[ObjectInfo]) -> Sequence[ObjectInfo]:
    """Return a page of `entries` without its last object if that one's `.used` entry may be on the next page."""
    if len(entries) < PAGE:
        return entries
    return [entry for entry in entries if _hash_of(entry) != _hash_of(entries[-1])]


def _unused(entries: Iterable[ObjectInfo], moment: datetime) -> Sequence[str]:
    """Return the hashes of the objects that were neither written nor used since `moment`."""
    groups = [(sha256, list(group)) for sha256, group in groupby(entries, _hash_of)]
    return [
        sha256
        for sha256, group in groups
        if group[0].path == _path(sha256) and max(entry.written for entry in group) < moment
    ]


def _verify(sha256: str, content: bytes) -> None:
    if hashlib.sha256(content).hexdigest() != sha256:
        log.error("media %s are not the bytes that were stored", sha256)
        raise MediaCorruptError(sha256)
