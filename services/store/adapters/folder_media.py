"""Media in a folder: `{aa}/{sha256}` by the first byte of the hash, and `incoming` for what is not whole yet."""

import asyncio
import errno
import fcntl
import hashlib
import itertools
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from services.common.concurrency.executors import BoundedExecutor
from services.common.errors import InvalidError, StorageFullError
from services.store.adapters.fsync import sync_path
from services.store.core.errors import MediaNotFoundError
from services.store.core.media_store import Announcement, StoredObject, checked_upload

FILES_AT_A_TIME = 512
_FULL = (errno.ENOSPC, errno.EDQUOT)


class FolderMedia:
    """`MediaStore` in files, for several processes at a time; a file's modification time is when it was last used.

    A file is complete once it has its name. Whoever marks objects as used, or deletes one, holds the lock file, so that
    none is deleted between being found unused and being used.
    """

    def __init__(self, folder: Path, executor: BoundedExecutor, syncers: BoundedExecutor) -> None:
        self._folder = folder
        self._executor = executor
        self._syncers = syncers
        self._mark = uuid4().hex  # tells the files of this process from those of others
        self._numbers = itertools.count()
        self._waiting: list[_Waiting] = []
        self._keeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Make the folder if need be, and remove what uploads of a process that crashed have left."""
        await self._executor.run(self._open)

    async def put(self, chunks: AsyncIterator[bytes], announced: Announcement) -> StoredObject:
        """Write the bytes beside, and name the file once they are whole and on the disk."""
        first, second = await anext(chunks, b""), await anext(chunks, None)
        if second is None:  # most media come in one piece
            return await self._put_whole(first, announced)
        incoming = self._incoming()
        try:
            await self._executor.run(self._begin, incoming)
            for chunk in (first, second):
                await self._executor.run(incoming.append, chunk)
            async for chunk in chunks:
                await self._executor.run(incoming.append, chunk)
            stored = checked_upload(incoming.stored, announced)
            await self._executor.run(self._keep, incoming, stored.sha256)
            return stored
        finally:
            await asyncio.shield(self._executor.run(incoming.discard))

    async def _put_whole(self, content: bytes, announced: Announcement) -> StoredObject:
        waiting = _Waiting(content, announced, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_waiting())
        return await waiting.outcome

    async def _keep_waiting(self) -> None:
        """Keep all that waits together, then what came meanwhile: many files cost the disk little more than one."""
        while batch := self._waiting[:FILES_AT_A_TIME]:
            del self._waiting[: len(batch)]
            try:
                outcomes = await self._executor.run(self._keep_all, batch)
            except Exception as error:  # each who waits raises it
                outcomes = [error] * len(batch)
            for waiting, outcome in zip(batch, outcomes, strict=True):
                waiting.settle(outcome)
        self._keeper = None

    async def claim(self, sha256s: Collection[str]) -> Mapping[str, int]:
        """Set the modification times."""
        return await self._executor.run(self._claim, sha256s) if sha256s else {}

    async def size_bytes(self, sha256: str) -> int:
        """Return the file's size."""
        return await self._executor.run(self._size_bytes, sha256)

    async def read(self, sha256: str, offset: int, length: int) -> bytes:
        """Read from the file."""
        return await self._executor.run(self._read, sha256, offset, length)

    async def unused_since(self, moment: datetime) -> AsyncGenerator[str, None]:
        """Look through the folders, one after another."""
        for shard in await self._executor.run(lambda: sorted(self._folder.glob("[0-9a-f][0-9a-f]"))):
            for sha256 in await self._executor.run(_unused_in, shard, moment.timestamp()):
                yield sha256

    async def delete(self, sha256: str, unused_since: datetime) -> bool:
        """Remove the file unless its modification time is later."""
        return await self._executor.run(self._delete, sha256, unused_since.timestamp())

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def _incoming(self) -> "_Incoming":
        return _Incoming(self._folder / "incoming" / f"{self._mark}.{next(self._numbers)}")

    def _open(self) -> None:
        for name in ("incoming", *(f"{first:02x}" for first in range(256))):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        sync_path(self._folder)
        with self._locked():
            for path in (self._folder / "incoming").iterdir():
                _remove_if_left(path)

    def _keep_all(self, batch: Sequence["_Waiting"]) -> Sequence[StoredObject | Exception]:
        outcomes = [waiting.checked() for waiting in batch]
        contents = {
            outcome.sha256: waiting.content
            for waiting, outcome in zip(batch, outcomes, strict=True)
            if isinstance(outcome, StoredObject)
        }
        for sha256 in self._claim(contents.keys()):
            del contents[sha256]
        self._keep_new(contents)
        return outcomes

    def _keep_new(self, contents: Mapping[str, bytes]) -> None:
        files = {sha256: self._incoming() for sha256 in contents}
        try:
            with self._locked():
                for incoming in files.values():
                    incoming.open()
            for sha256, incoming in files.items():
                incoming.append(contents[sha256])
            self._syncers.block_on_each(_Incoming.sync, files.values())
            with self._locked():
                for sha256, incoming in files.items():
                    incoming.rename(self._path(sha256))
            self._syncers.block_on_each(sync_path, {self._path(sha256).parent for sha256 in files})
        finally:
            for incoming in files.values():
                incoming.discard()

    def _begin(self, incoming: "_Incoming") -> None:
        with self._locked():
            incoming.open()

    def _keep(self, incoming: "_Incoming", sha256: str) -> None:
        path = self._path(sha256)
        with self._locked():
            if _touched(path):
                return
        incoming.sync()
        with self._locked():
            incoming.rename(path)
        sync_path(path.parent)

    def _claim(self, sha256s: Collection[str]) -> dict[str, int]:
        with self._locked():
            return {sha256: self._path(sha256).stat().st_size for sha256 in sha256s if _touched(self._path(sha256))}

    def _size_bytes(self, sha256: str) -> int:
        with _found(sha256):
            return self._path(sha256).stat().st_size

    def _read(self, sha256: str, offset: int, length: int) -> bytes:
        with _found(sha256), self._path(sha256).open("rb", buffering=0) as file:
            file.seek(offset)
            return _read_fully(file, length)

    def _delete(self, sha256: str, unused_since: float) -> bool:
        path = self._path(sha256)
        with self._locked():
            try:
                unused = path.stat().st_mtime < unused_since
            except FileNotFoundError:
                return False
            if unused:
                path.unlink()
            return unused

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """Bytes that wait to be kept, and who waits for them."""

    content: bytes
    announced: Announcement
    outcome: "asyncio.Future[StoredObject]"

    def checked(self) -> StoredObject | Exception:
        stored = StoredObject(hashlib.sha256(self.content).hexdigest(), len(self.content))
        try:
            return checked_upload(stored, self.announced)
        except InvalidError as error:
            return error

    def settle(self, outcome: StoredObject | Exception) -> None:
        if self.outcome.done():  # whoever waited was cancelled
            return
        if isinstance(outcome, Exception):
            self.outcome.set_exception(outcome)
        else:
            self.outcome.set_result(outcome)


class _Incoming:
    """A file being written. It stays locked until it is whole or discarded, so that a file nobody locks is a left one.

    Its methods are called from one thread at a time, or from a second one when the first was given up on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._discarded = False
        self._digest = hashlib.sha256()
        self._size = 0
        self._turn = threading.Lock()

    @property
    def stored(self) -> StoredObject:
        """What the bytes so far are."""
        return StoredObject(self._digest.hexdigest(), self._size)

    def open(self) -> None:
        with self._turn, _storing(self._path):
            if not self._discarded:
                self._file = self._path.open("xb", buffering=0)
                fcntl.flock(self._file, fcntl.LOCK_EX)

    def append(self, chunk: bytes) -> None:
        with self._turn, _storing(self._path):
            if self._file is not None:
                _write_fully(self._file, chunk)
                self._digest.update(chunk)
                self._size += len(chunk)

    def sync(self) -> None:
        with self._turn, _storing(self._path):
            if self._file is not None:
                os.fsync(self._file.fileno())

    def rename(self, path: Path) -> None:
        with self._turn, _storing(path):
            if self._file is not None:
                self._path.rename(path)

    def discard(self) -> None:
        with self._turn:
            self._discarded = True
            if self._file is not None:
                self._path.unlink(missing_ok=True)
                self._file.close()
                self._file = None


def _unused_in(shard: Path, moment: float) -> list[str]:
    with suppress(FileNotFoundError), os.scandir(shard) as entries:
        return [entry.name for entry in entries if entry.stat().st_mtime < moment]
    return []


def _touched(path: Path) -> bool:
    """Mark the object at `path` as used now; return whether there is one."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _remove_if_left(path: Path) -> None:
    """Remove an incoming file unless a live process writes it."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        path.unlink(missing_ok=True)


def _read_fully(file: BinaryIO, length: int) -> bytes:
    parts = []
    while length > 0 and (part := file.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _write_fully(file: BinaryIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


@contextmanager
def _found(sha256: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise MediaNotFoundError(sha256) from error


@contextmanager
def _storing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError(str(path.parent)) from error
        raise
