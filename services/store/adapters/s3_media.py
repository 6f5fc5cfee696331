"""Media in an S3 bucket.

`media/{aa}/{sha256}` is an object under its hash; `{sha256}.used` beside it, empty, is written when it is used again:
the later of the two was written when the object was last used. `incoming/{upload}/{number}` are the parts of a large
upload whose hash is not known yet. `collecting/{sha256}.{number}` says that somebody is about to delete an object:
whoever deletes writes it first, then looks when the object was used; whoever uses an object writes that first, then
looks whether it is being collected. So one of them sees the other, and none is deleted between being found unused and
being used, on a store that has no locks.
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
from services.store.core.media_store import Announcement, StoredObject, checked_upload

log = logging.getLogger(__name__)

PART_BYTES = 8 * 2**20  # S3 composes of parts of at least 5 MiB, and at most 10,000 of them
SMALL_BYTES = 2**20
LARGE_UPLOADS = 32  # that are larger than that, at a time: each may hold a part in memory
LEFT_PARTS = timedelta(days=1)
LEFT_MARKS = timedelta(hours=1)
DELETION_SECONDS = 60.0  # far below LEFT_MARKS: who took longer gives up
TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 0.05
_TO_THE_SECOND = timedelta(seconds=1)


class S3Media:
    """`MediaStore` and `MediaLinks` in a bucket, for several processes at a time.

    `verified_share` is the share of reads of whole objects whose bytes are compared with their hash.
    """

    def __init__(self, bucket: S3Bucket, executor: DeadlineExecutor, *, verified_share: float) -> None:
        self._bucket = bucket
        self._executor = executor
        self._verified_share = verified_share
        self._collecting = _Collecting(bucket, executor)
        self._large_uploads = asyncio.Semaphore(LARGE_UPLOADS)

    async def open(self) -> None:
        """Remove what processes that crashed have left."""
        for folder, age in (("incoming/", LEFT_PARTS), ("collecting/", LEFT_MARKS)):
            left = [path async for path in self._older_than(folder, datetime.now(UTC) - age)]
            await self._executor.run(self._bucket.remove_all, left)
        try:
            await self._executor.run(self._bucket.abort_uploads, "media/", datetime.now(UTC) - LEFT_PARTS)
        except (ServiceUnavailableError, *S3_ERRORS) as error:
            log.warning("unfinished uploads are not looked for (%s): let a lifecycle rule end them", error)

    async def put(self, chunks: AsyncIterator[bytes], announced: Announcement) -> StoredObject:
        """Collect what fits a part, and write it under its hash; write parts of what does not, and compose them."""
        upload = _Upload(self._bucket, self._executor, self._large_uploads)
        try:
            async for chunk in chunks:
                await upload.append(chunk)
            stored = checked_upload(upload.stored, announced)
            await self._keep(upload, stored.sha256)
            return stored
        finally:
            await asyncio.shield(upload.discard())

    async def claim(self, sha256s: Collection[str]) -> Mapping[str, int]:
        """Write that they are used."""
        await asyncio.gather(*(self._executor.run(self._bucket.put, _used(sha256), b"") for sha256 in sha256s))
        await self._deletions_over(sha256s)
        entries = await asyncio.gather(*(self._executor.run(self._claimed, sha256) for sha256 in sha256s))
        return {sha256: entry.size_bytes for sha256, entry in zip(sha256s, entries, strict=True) if entry}

    async def size_bytes(self, sha256: str) -> int:
        """Look the object up."""
        entry = await self._executor.run(self._bucket.look_up, _path(sha256))
        if entry is None:
            raise MediaNotFoundError(sha256)
        return entry.size_bytes

    async def read(self, sha256: str, offset: int, length: int) -> bytes:
        """Read a range."""
        if length <= 0:
            await self.size_bytes(sha256)
            return b""
        return await self._executor.run(self._read, sha256, offset, length)

    async def unused_since(self, moment: datetime) -> AsyncGenerator[str, None]:
        """List the objects, folder by folder."""
        after = ""
        while entries := await self._executor.run(self._bucket.page, "media/", after):
            whole = _whole_groups(entries)
            for sha256 in _unused(whole, moment):
                yield sha256
            after = whole[-1].path

    async def delete(self, sha256: str, unused_since: datetime) -> bool:
        """Say so, look when it was used, and remove it."""
        return await self._executor.run(self._delete, sha256, unused_since)

    async def url(self, sha256: str, seconds: int, mime_type: str) -> str:
        """Sign one."""
        await self.size_bytes(sha256)
        return await self._executor.run(self._bucket.url, _path(sha256), seconds, mime_type)

    async def _keep(self, upload: "_Upload", sha256: str) -> None:
        """Name the object, again if it was deleted meanwhile as one that was there before and unused."""
        while True:
            await upload.name(sha256)
            if not await self._deletions_over([sha256]):
                return
            if await self._executor.run(self._bucket.look_up, _path(sha256)):
                return

    async def _deletions_over(self, sha256s: Collection[str]) -> bool:
        """Return, once nobody is about to delete one of the objects, whether anybody was.

        Raises:
            ServiceUnavailableError: somebody is for long, so is slow or dead; later another will see to it.
        """
        waited = False
        until = time.monotonic() + remaining_seconds(TIMEOUT_SECONDS)
        while busy := await self._collecting.now() & set(sha256s):
            if time.monotonic() > until:
                raise ServiceUnavailableError("object store", f"is about to delete {min(busy)!r}")
            waited = True
            await asyncio.sleep(POLL_SECONDS)
        return waited

    def _claimed(self, sha256: str) -> ObjectInfo | None:
        entry = self._bucket.look_up(_path(sha256))
        if entry is None:
            self._bucket.remove(_used(sha256))
        return entry

    def _read(self, sha256: str, offset: int, length: int) -> bytes:
        try:
            fetched = self._bucket.get(_path(sha256), offset, length)
        except NoSuchKeyError as error:
            raise MediaNotFoundError(sha256) from error
        whole = offset == 0 and len(fetched.content) == fetched.object_bytes
        if whole and random.random() < self._verified_share:
            _check(sha256, fetched.content)
        return fetched.content

    def _delete(self, sha256: str, unused_since: datetime) -> bool:
        mark, began = f"collecting/{sha256}.{uuid4().hex}", time.monotonic()
        self._bucket.put(mark, b"")
        try:
            uses = [entry.written for path in (_path(sha256), _used(sha256)) if (entry := self._bucket.look_up(path))]
            if not uses or max(uses) + _TO_THE_SECOND > unused_since or time.monotonic() - began > DELETION_SECONDS:
                return False
            self._bucket.remove_all([_path(sha256), _used(sha256)])
            return True
        finally:
            self._bucket.remove(mark)

    async def _older_than(self, folder: str, moment: datetime) -> AsyncGenerator[str, None]:
        for entry in await self._executor.run(lambda: list(self._bucket.entries(folder))):
            if entry.written < moment:
                yield entry.path


class _Collecting:
    """Which objects somebody is about to delete. Those who ask while an answer is under way share the next one."""

    def __init__(self, bucket: S3Bucket, executor: DeadlineExecutor) -> None:
        self._bucket = bucket
        self._executor = executor
        self._under_way: asyncio.Task[set[str]] | None = None
        self._next: asyncio.Task[set[str]] | None = None

    async def now(self) -> set[str]:
        """Return the hashes as of some moment after the call."""
        if self._next is None:  # in a context of its own: it is for others too, whose deadlines are not this caller's
            self._next = asyncio.create_task(self._list_after(self._under_way), context=Context())
            self._next.add_done_callback(consume_exception)
        return await asyncio.shield(self._next)

    async def _list_after(self, under_way: "asyncio.Task[set[str]] | None") -> set[str]:
        if under_way is not None:
            await asyncio.wait([under_way])
        self._under_way, self._next = self._next, None
        return await self._executor.run(self._list)

    def _list(self) -> set[str]:
        alive = datetime.now(UTC) - LEFT_MARKS
        return {_hash_of(entry) for entry in self._bucket.entries("collecting/") if entry.written > alive}


class _Upload:
    """Bytes on their way in: the last ones here, those before as objects of a part each."""

    def __init__(self, bucket: S3Bucket, executor: DeadlineExecutor, turns: asyncio.Semaphore) -> None:
        self._bucket = bucket
        self._executor = executor
        self._turns = turns
        self._has_turn = False
        self._folder = f"incoming/{uuid4().hex}"
        self._parts: list[str] = []
        self._rest = bytearray()
        self._digest = hashlib.sha256()
        self._size = 0

    @property
    def stored(self) -> StoredObject:
        """What the bytes so far are."""
        return StoredObject(self._digest.hexdigest(), self._size)

    async def append(self, chunk: bytes) -> None:
        if len(self._rest) + len(chunk) > SMALL_BYTES and not self._has_turn:
            self._has_turn = await self._turns.acquire()
        self._digest.update(chunk)
        self._size += len(chunk)
        self._rest += chunk
        while len(self._rest) > PART_BYTES:
            part = bytes(self._rest[:PART_BYTES])
            del self._rest[:PART_BYTES]
            await self._store(part)

    async def name(self, sha256: str) -> None:
        """Let the object be there under its hash."""
        if not self._parts:
            await self._executor.run(self._bucket.put, _path(sha256), bytes(self._rest))
            return
        if self._rest:
            await self._store(bytes(self._rest))
            self._rest.clear()
        seconds = self._bucket.compose_seconds(len(self._parts))
        await self._executor.run_within(seconds, self._bucket.compose, _path(sha256), self._parts)

    async def discard(self) -> None:
        """Remove the parts, as far as it can be; a start removes what is left."""
        if self._has_turn:
            self._turns.release()
        if self._parts:
            try:
                await self._executor.run(self._bucket.remove_all, self._parts)
            except ServiceUnavailableError:
                log.warning("parts of an upload are left under %s", self._folder)

    async def _store(self, part: bytes) -> None:
        path = f"{self._folder}/{len(self._parts):05d}"
        self._parts.append(path)
        await self._executor.run(self._bucket.put, path, part)


def _path(sha256: str) -> str:
    return f"media/{sha256[:2]}/{sha256}"


def _used(sha256: str) -> str:
    return f"{_path(sha256)}.used"


def _hash_of(entry: ObjectInfo) -> str:
    return entry.path.rpartition("/")[2].partition(".")[0]


def _whole_groups(entries: Sequence[ObjectInfo]) -> Sequence[ObjectInfo]:
    """Return `entries`, a page, without its last object if its mark may be on the next page."""
    if len(entries) < PAGE:
        return entries
    return [entry for entry in entries if _hash_of(entry) != _hash_of(entries[-1])]


def _unused(entries: Iterable[ObjectInfo], moment: datetime) -> Sequence[str]:
    """Return the hashes of the objects of which neither they nor their marks were written since."""
    groups = [(sha256, list(group)) for sha256, group in groupby(entries, _hash_of)]
    return [
        sha256
        for sha256, group in groups
        if group[0].path == _path(sha256) and max(entry.written for entry in group) < moment
    ]


def _check(sha256: str, content: bytes) -> None:
    if hashlib.sha256(content).hexdigest() != sha256:
        log.error("media %s are not the bytes that were stored", sha256)
        raise MediaCorruptError(sha256)
