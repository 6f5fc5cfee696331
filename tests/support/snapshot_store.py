"""Snapshots in the memory of this process: the oracle of the other stores."""

import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from services.search.snapshots.object_store import MissingFileError, StoredFile


class MemorySnapshots:
    """`SnapshotStore` over a dictionary; who shares the object shares the snapshots."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, datetime]] = {}
        self._lock = threading.Lock()

    def put(self, path: str, content: bytes) -> None:
        """See `SnapshotStore`."""
        with self._lock:
            self._files[path] = content, datetime.now(UTC)

    def get(self, path: str) -> bytes:
        """See `SnapshotStore`."""
        with self._lock:
            if path not in self._files:
                raise MissingFileError(path)
            return self._files[path][0]

    def files(self, folder: str) -> Sequence[StoredFile]:
        """See `SnapshotStore`."""
        prefix = f"{folder}/" if folder else ""
        with self._lock:
            kept = [(path, *kept) for path, kept in sorted(self._files.items()) if path.startswith(prefix)]
        return [StoredFile(path, len(content), written) for path, content, written in kept]

    def remove(self, paths: Iterable[str]) -> None:
        """See `SnapshotStore`."""
        with self._lock:
            for path in paths:
                self._files.pop(path, None)
