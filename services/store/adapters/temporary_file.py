"""Files being written, which a crash leaves behind without a lock."""

import errno
import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from services.common.errors import StorageFullError
from services.store.core.media_store import StoredObject

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class TemporaryFile:
    """A file being written. It is locked until it is complete or discarded: one without a lock is left from a crash.

    Its methods run in one thread at a time, except that `discard` may run while a cancelled call still does.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._discarded = False
        self._digest = hashlib.sha256()
        self._size = 0
        self._lock = threading.Lock()

    @property
    def stored(self) -> StoredObject:
        """The hash and size of the bytes so far."""
        return StoredObject(self._digest.hexdigest(), self._size)

    def open(self) -> None:
        """Create and lock the file, unless it was discarded."""
        with self._lock, _translate_full_disk(self._path):
            if not self._discarded:
                self._file = self._path.open("xb", buffering=0)
                fcntl.flock(self._file, fcntl.LOCK_EX)

    def append(self, chunk: bytes) -> None:
        """Write a chunk at the end."""
        with self._lock, _translate_full_disk(self._path):
            if self._file is not None:
                _write_fully(self._file, chunk)
                self._digest.update(chunk)
                self._size += len(chunk)

    def sync(self) -> None:
        """Fsync the file."""
        with self._lock, _translate_full_disk(self._path):
            if self._file is not None:
                os.fsync(self._file.fileno())

    def rename(self, path: Path) -> None:
        """Rename the complete file to `path`."""
        with self._lock, _translate_full_disk(path):
            if self._file is not None:
                self._path.rename(path)

    def discard(self) -> None:
        """Close the file, and delete it unless it was renamed."""
        with self._lock:
            self._discarded = True
            if self._file is not None:
                self._path.unlink(missing_ok=True)
                self._file.close()
                self._file = None


def remove_if_stale(path: Path) -> None:
    """Remove a temporary file unless a live process writes it."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        path.unlink(missing_ok=True)


def _write_fully(file: BinaryIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


@contextmanager
def _translate_full_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL_DISK:
            raise StorageFullError(str(path.parent)) from error
        raise
