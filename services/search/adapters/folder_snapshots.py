"""Snapshots in a folder, this machine's own or one that several share."""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from services.common.errors import ServiceUnavailableError, StorageFullError
from services.search.snapshots.object_store import MissingFileError, StoredFile

DRAFT = ".draft"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ATTEMPTS = 5


class FolderSnapshots:
    """`SnapshotStore` in files. Each is written under another name, brought to the disk, and renamed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, path: str, content: bytes) -> None:
        """List the files; another process may remove a folder meanwhile, with the last file in it."""
        target = self._folder / path
        with _errors(target):
            for left in reversed(range(_ATTEMPTS)):
                try:
                    self._make_folder(target.parent)
                    _write(target, content)
                    break
                except FileNotFoundError:
                    if not left:
                        raise

    def get(self, path: str) -> bytes:
        source = self._folder / path
        with _errors(source):
            try:
                return source.read_bytes()
            except FileNotFoundError as error:
                raise MissingFileError(path) from error

    def files(self, folder: str) -> Sequence[StoredFile]:
        root = self._folder / folder
        with _errors(root):
            found = [stored for path in _walked(root) if (stored := self._stored(path)) is not None]
        return sorted(found, key=lambda stored: stored.path)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove the file, and folders that are then empty."""
        parents = set()
        for path in paths:
            with _errors(self._folder / path):
                (self._folder / path).unlink(missing_ok=True)
            parents |= {self._folder / parent for parent in Path(path).parents if parent != Path()}
        for folder in sorted(parents, key=lambda each: len(each.parts), reverse=True):
            with suppress(OSError):  # it is not empty
                folder.rmdir()

    def _make_folder(self, folder: Path) -> None:
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            _sync(made.parent)

    def _stored(self, path: Path) -> StoredFile | None:
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        written = datetime.fromtimestamp(status.st_mtime, UTC)
        return StoredFile(path.relative_to(self._folder).as_posix(), status.st_size, written)


def _write(target: Path, content: bytes) -> None:
    draft = target.with_name(f"{target.name}.{uuid4().hex}{DRAFT}")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(target)
    except OSError:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    _sync(target.parent)


def _sync(folder: Path) -> None:
    """Bring the entries of `folder` to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _walked(root: Path) -> Iterator[Path]:
    """Yield the files under `root`; nothing where it is not there, an error where it cannot be read."""
    for folder, _, names in os.walk(root, onerror=_raise_unless_gone):
        yield from (Path(folder) / name for name in names)


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError(str(path.parent)) from error
        raise ServiceUnavailableError("snapshot folder", f"says {error.strerror!r} for {path}") from error
