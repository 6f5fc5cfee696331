"""Where backups lie: files by path."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol
from uuid import uuid4

BLOCK_BYTES = 2**20


class Destination(Protocol):
    """Files by relative path, "/" between folders. Implementations pass `tests.contract.backup_destination`."""

    def size(self, path: str) -> int | None:
        """Return the bytes of the file, None where there is none."""
        ...

    def read(self, path: str) -> Iterator[bytes]:
        """Yield the file's bytes in blocks.

        Raises:
            FileNotFoundError: there is no such file.
        """
        ...

    def write(self, path: str, blocks: Iterable[bytes]) -> None:
        """Write a file, over one that is there; where `blocks` raises, or the process dies, all is as it was before."""
        ...

    def delete(self, path: str) -> None:
        """Delete a file; one that is not there needs nothing."""
        ...


class FolderDestination:
    """`Destination` in a folder, which is made when it is first written to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def size(self, path: str) -> int | None:
        """Ask the file system."""
        try:
            return (self._folder / path).stat().st_size
        except FileNotFoundError:
            return None

    def read(self, path: str) -> Iterator[bytes]:
        """Read block by block."""
        with (self._folder / path).open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block

    def write(self, path: str, blocks: Iterable[bytes]) -> None:
        """Write beside, sync, and rename."""
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
        """Unlink."""
        (self._folder / path).unlink(missing_ok=True)
