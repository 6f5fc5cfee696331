"""Where snapshots of built indexes are kept: files by path."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class MissingFileError(Exception):
    """There is no file at the path."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is missing")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file, and when it was written, by the clock of whoever keeps it."""

    path: str
    size_bytes: int
    written: datetime


class SnapshotStore(Protocol):
    """Files that outlive the process. Implementations pass `tests.contract.snapshot_store`.

    A path is names joined by "/". Calls block; they may come from several threads and processes at once. Each ends
    within the deadline of `services.common.deadlines`, or soon after. Files are small enough to be held in memory.
    """

    def put(self, path: str, content: bytes) -> None:
        """Keep `content` at `path`, over what was there: whole and for good, or not at all.

        Raises:
            StorageFullError: no room.
            ServiceUnavailableError: it cannot be written now.
        """
        ...

    def get(self, path: str) -> bytes:
        """Return what is at `path`.

        Raises:
            MissingFileError: nothing is.
            ServiceUnavailableError: it cannot be read now.
        """
        ...

    def files(self, folder: str) -> Sequence[StoredFile]:
        """Return all files under `folder`, "" for all there are, at any depth, by path; also what a crash left.

        Raises:
            ServiceUnavailableError: they cannot be listed now.
        """
        ...

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files, in the order given, as far as they are there.

        Raises:
            ServiceUnavailableError: they cannot be removed now.
        """
        ...
