"""Destinations of backups: files by path."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol
from uuid import uuid4

BLOCK_BYTES = 2**20


class Destination(Protocol):
    """Files by relative path, "/" between folders. Implementations pass `tests.contract.backup_destination`."""

    def size(self, path: str) -> int | None:
        """Return the size of the file in bytes, None if there is none."""
        ...

    def read(self, path: str) -> Iterator[bytes]:
        """Yield the file's bytes in blocks.

        Raises:
            FileNotFoundError: there is no such file.
        """
        ...

    def write(self, path: str, blocks: Iterable[bytes]) -> None:
        """Write a file atomically, replacing an existing one; if `blocks` raises, nothing changes."""
        ...

    def delete(self, path: str) -> None:
        """Delete a file if there is one."""
        ...


class FolderDestination:
    """`Destination` in a folder, which is created by the first write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def size(self, path: str) -> int | None:
        try:
            return (self._folder / path).stat().st_size
        except FileNotFoundError:
            return None

    def read(self, path: str) -> Iterator[bytes]:
        with (self._folder / path).open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block

    def write(self, path: str, blocks: Iterable[bytes]) -> None:
        whole = self._folder / path
        whole.parent.mkdir(parents=True, exist_ok=True)
        part = whole.with_name(f".{whole.name}.{uuid4().hex}.part")
        try:
            with part.open("xb") as file:
                for block in blocks:
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            part.replace(whole)
        finally:
            part.unlink(missing_ok=True)

    def delete(self, path: str) -> None:
        (self._folder / path).unlink(missing_ok=True)
