"""Media in a folder: `{aa}/{sha256}` by the first byte of the hash, and `incoming` for uploads in progress."""

import asyncio
import fcntl
import hashlib
import itertools
import os
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from services.common.concurrency.executors import BoundedExecutor
from services.common.errors import InvalidError
from services.store.adapters.fsync import sync_path
from services.store.adapters.temporary_file import TemporaryFile, remove_if_stale
from services.store.core.errors import MediaNotFoundError
from services.store.core.media_store import ExpectedUpload, StoredObject, validate_upload

MAX_BATCH_FILES = 512


class FolderMedia:
    """`MediaStore` in files, shared by several processes. A file's modification time is when it was last used.

    A file is renamed to its hash once it is complete. Touching and deleting objects takes the lock file, so that no
    object is touched between being found unused and being deleted.
    """

    def __init__(self, folder: Path, executor: BoundedExecutor, syncers: BoundedExecutor) -> None:
        self._folder = folder
        self._executor = executor
        self._syncers = syncers
        self._process = uuid4().hex  # makes the names of temporary files unique among processes
        self._file_numbers = itertools.count()
        self._pending: list[_PendingWrite] = []
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Create the folder, and remove the temporary files of processes that crashed."""
        await self._executor.run(self._open)

    async def put(self, chunks: AsyncIterator[bytes], expected: ExpectedUpload) -> StoredObject:
        first, second = await anext(chunks, b""), await anext(chunks, None)
        if second is None:  # most media arrive in one chunk
            return await self._put_single(first, expected)
        temporary = self._create_temporary()
        try:
            await self._executor.run(self._begin, temporary)
            for chunk in (first, second):
                await self._executor.run(temporary.append, chunk)
            async for chunk in chunks:
                await self._executor.run(temporary.append, chunk)
            stored = validate_upload(temporary.stored, expected)
            await self._executor.run(self._store, temporary, stored.sha256)
            return stored
        finally:
            await asyncio.shield(self._executor.run(temporary.discard))

    async def _put_single(self, content: bytes, expected: ExpectedUpload) -> StoredObject:
        pending = _PendingWrite(content, expected, asyncio.get_running_loop().create_future())
        self._pending.append(pending)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_pending())
        return await pending.outcome

    async def _write_pending(self) -> None:
        """Write all pending files as one batch until none are left: syncing many files takes little longer than one."""
        while batch := self._pending[:MAX_BATCH_FILES]:
            del self._pending[: len(batch)]
            try:
                outcomes = await self._executor.run(self._store_batch, batch)
            except Exception as error:  # every caller raises it
                outcomes = [error] * len(batch)
            for pending, outcome in zip(batch, outcomes, strict=True):
                pending.resolve(outcome)
        self._writer = None

    async def touch(self, sha256s: Collection[str]) -> Mapping[str, int]:
        return await self._executor.run(self._touch, sha256s) if sha256s else {}

    async def size_bytes(self, sha256: str) -> int:
        return await self._executor.run(self._size_bytes, sha256)

    async def read(self, sha256: str, offset: int, length: int) -> bytes:
        return await self._executor.run(self._read, sha256, offset, length)

    async def unused_since(self, moment: datetime) -> AsyncGenerator[str, None]:
        for shard in await self._executor.run(lambda: sorted(self._folder.glob("[0-9a-f][0-9a-f]"))):
            for sha256 in await self._executor.run(_unused_in, shard, moment.timestamp()):
                yield sha256

    async def delete(self, sha256: str, unused_since: datetime) -> bool:
        return await self._executor.run(self._delete, sha256, unused_since.timestamp())

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def _create_temporary(self) -> "TemporaryFile":
        return TemporaryFile(self._folder / "incoming" / f"{self._process}.{next(self._file_numbers)}")

    def _open(self) -> None:
        for name in ("incoming", *(f"{first:02x}" for first in range(256))):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        sync_path(self._folder)
        with self._lock_folder():
            for path in (self._folder / "incoming").iterdir():
                remove_if_stale(path)

    def _store_batch(self, batch: Sequence["_PendingWrite"]) -> Sequence[StoredObject | Exception]:
        outcomes = [pending.validate() for pending in batch]
        contents = {
            outcome.sha256: pending.content
            for pending, outcome in zip(batch, outcomes, strict=True)
            if isinstance(outcome, StoredObject)
        }
        for sha256 in self._touch(contents.keys()):
            del contents[sha256]
        self._store_files(contents)
        return outcomes

    def _store_files(self, contents: Mapping[str, bytes]) -> None:
        files = {sha256: self._create_temporary() for sha256 in contents}
        try:
            with self._lock_folder():
                for temporary in files.values():
                    temporary.open()
            for sha256, temporary in files.items():
                temporary.append(contents[sha256])
            self._syncers.block_on_each(TemporaryFile.sync, files.values())
            with self._lock_folder():
                for sha256, temporary in files.items():
                    temporary.rename(self._path(sha256))
            self._syncers.block_on_each(sync_path, {self._path(sha256).parent for sha256 in files})
        finally:
            for temporary in files.values():
                temporary.discard()

    def _begin(self, temporary: "TemporaryFile") -> None:
        with self._lock_folder():
            temporary.open()

    def _store(self, temporary: "TemporaryFile", sha256: str) -> None:
        path = self._path(sha256)
        with self._lock_folder():
            if _touch_file(path):
                return
        temporary.sync()
        with self._lock_folder():
            temporary.rename(path)
        sync_path(path.parent)

    def _touch(self, sha256s: Collection[str]) -> dict[str, int]:
        with self._lock_folder():
            return {sha256: self._path(sha256).stat().st_size for sha256 in sha256s if _touch_file(self._path(sha256))}

    def _size_bytes(self, sha256: str) -> int:
        with _translate_missing(sha256):
            return self._path(sha256).stat().st_size

    def _read(self, sha256: str, offset: int, length: int) -> bytes:
        with _translate_missing(sha256), self._path(sha256).open("rb", buffering=0) as file:
            file.seek(offset)
            return _read_fully(file, length)

    def _delete(self, sha256: str, unused_since: float) -> bool:
        path = self._path(sha256)
        with self._lock_folder():
            try:
                unused = path.stat().st_mtime < unused_since
            except FileNotFoundError:
                return False
            if unused:
                path.unlink()
            return unused

    @contextmanager
    def _lock_folder(self) -> Iterator[None]:
        with (self._folder / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


@dataclass(frozen=True, slots=True, eq=False)
class _PendingWrite:
    """An object that waits to be written, and its caller's future."""

    content: bytes
    expected: ExpectedUpload
    outcome: "asyncio.Future[StoredObject]"

    def validate(self) -> StoredObject | Exception:
        stored = StoredObject(hashlib.sha256(self.content).hexdigest(), len(self.content))
        try:
            return validate_upload(stored, self.expected)
        except InvalidError as error:
            return error

    def resolve(self, outcome: StoredObject | Exception) -> None:
        if self.outcome.done():  # the caller was cancelled
            return
        if isinstance(outcome, Exception):
            self.outcome.set_exception(outcome)
        else:
            self.outcome.set_result(outcome)


def _unused_in(shard: Path, moment: float) -> list[str]:
    with suppress(FileNotFoundError), os.scandir(shard) as entries:
        return [entry.name for entry in entries if entry.stat().st_mtime < moment]
    return []


def _touch_file(path: Path) -> bool:
    """Set the file's modification time to now; return whether it exists."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _read_fully(file: BinaryIO, length: int) -> bytes:
    parts = []
    while length > 0 and (part := file.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


@contextmanager
def _translate_missing(sha256: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise MediaNotFoundError(sha256) from error
