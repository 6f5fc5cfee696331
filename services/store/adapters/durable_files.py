"""Making the files of a folder outlive a power failure; Lance leaves that to the system."""

import os
import threading
from pathlib import Path


class DurableFiles:
    """The files under a folder, which are written once and never changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._synced: set[str] = set()
        self._turn = threading.Lock()

    def sync(self) -> None:
        """Return once every file that is there now is on the disk."""
        with self._turn:
            here = {str(path) for path in self._folder.rglob("*")} | {str(self._folder)}
            new = here - self._synced
            for path in sorted(new | {str(Path(path).parent) for path in new - {str(self._folder)}}):
                sync_path(Path(path))
            self._synced = here


def sync_path(path: Path) -> None:
    """Return once the file or folder at `path` is on the disk; one that is gone needs nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
