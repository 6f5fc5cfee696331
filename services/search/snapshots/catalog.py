"""Which snapshots a store has, of which collections and versions, and which of them go.

A snapshot is a folder `{collection}/{sequence}-{version}-{random}`. Its manifest is written last, so what has none is
not complete. Nothing is ever written over: writers that share a store cannot tear each other's snapshots.
"""

import logging
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from uuid import uuid4

from services.common.errors import ServiceError, ServiceUnavailableError
from services.common.versions import Version
from services.search.snapshots.object_store import SnapshotStore, StoredFile

MANIFEST = "manifest.json"
RETAINED_SNAPSHOTS = 2
"""Who is just reading a snapshot still finds its files when the next one is complete."""

ABANDONED_AFTER = timedelta(minutes=15)
"""A snapshot that is not complete is given up when nothing was added to it for so long."""

DROP_SECONDS = 60.0
DROP_PAUSE_SECONDS = 0.2

_PREFIX = "collections/"
_FOLDER = re.compile(r"[^/]+/(?P<sequence>\d{10})-(?P<uid>[0-9A-Za-z]+)\.(?P<number>\d+)-[0-9a-f]{8}")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Folder:
    """The files of one snapshot, by name."""

    store: SnapshotStore
    path: str

    def get(self, name: str) -> bytes:
        """Return a file; see `SnapshotStore.get`."""
        return self.store.get(f"{self.path}/{name}")

    def put(self, name: str, content: bytes) -> None:
        """Keep a file; see `SnapshotStore.put`."""
        self.store.put(f"{self.path}/{name}", content)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that is in a store, complete or not."""

    folder: str
    sequence: int
    version: Version
    files: Sequence[StoredFile]

    @property
    def complete(self) -> bool:
        """Whether it has its manifest."""
        return f"{self.folder}/{MANIFEST}" in (file.path for file in self.files)

    @property
    def written(self) -> datetime:
        """When something was added to it last."""
        return max(file.written for file in self.files)


class SnapshotCatalog:
    """The snapshots in a store, by collection. Calls block and raise as those of `SnapshotStore`."""

    def __init__(self, store: SnapshotStore) -> None:
        self._store = store
        self._corrupt: set[str] = set()

    def collections(self) -> set[str]:
        """Return the collections that have snapshots, complete or not."""
        return {_PREFIX + snapshot.folder.partition("/")[0] for snapshot in _snapshots(self._store.files(""))}

    def snapshots(self, collection: str) -> Sequence[Snapshot]:
        """Return the snapshots of a collection, newest first."""
        return _snapshots(self._store.files(collection.removeprefix(_PREFIX)))

    def complete(self, collection: str, uid: str) -> Sequence[Snapshot]:
        """Return the complete snapshots of the collection that was made with `uid`, newest first, but useless ones."""
        found = [snapshot for snapshot in self.snapshots(collection) if snapshot.folder not in self._corrupt]
        return [snapshot for snapshot in found if snapshot.complete and snapshot.version.uid == uid]

    def mark_corrupt(self, snapshot: Snapshot) -> None:
        """Let a snapshot that cannot be used count for nothing, and go when there is a newer one."""
        self._corrupt.add(snapshot.folder)

    def folder(self, snapshot: Snapshot) -> Folder:
        """Return the files of a snapshot."""
        return Folder(self._store, snapshot.folder)

    def new_folder(self, collection: str, version: Version) -> Folder:
        """Return an empty folder for a snapshot that will be newer than those there are."""
        sequence = max((snapshot.sequence for snapshot in self.snapshots(collection)), default=0) + 1
        name = f"{sequence:010d}-{version}-{uuid4().hex[:8]}"
        return Folder(self._store, f"{collection.removeprefix(_PREFIX)}/{name}")

    def sizes(self, folder: Folder) -> dict[str, int]:
        """Return how large the files in `folder` are, by name."""
        return {file.path.rpartition("/")[2]: file.size_bytes for file in self._store.files(folder.path)}

    def clear(self, folder: Folder) -> None:
        """Remove what is in `folder`, where possible."""
        try:
            self._store.remove([file.path for file in self._store.files(folder.path)])
        except ServiceError as error:
            log.warning("an incomplete snapshot is left in %s: %s", folder.path, error)

    def prune(self, collection: str, uid: str) -> None:
        """Remove what nobody needs: complete snapshots that are replaced or of another `uid`, and abandoned ones."""
        kept = [snapshot.folder for snapshot in self.complete(collection, uid)[:RETAINED_SNAPSHOTS]]
        others = [snapshot for snapshot in self.snapshots(collection) if snapshot.folder not in kept]
        young = datetime.now(UTC) - ABANDONED_AFTER
        self._remove(snapshot for snapshot in others if snapshot.complete or snapshot.written < young)

    def remove_all(self, collection: str) -> None:
        """Remove all snapshots of a collection."""
        self._remove(self.snapshots(collection))

    def drop_before(self, collection: str, version: Version) -> int:
        """Remove all snapshots of versions before `version`, complete or not; return how many were complete.

        What another process is just writing it notices in the end: until then its files are removed as they come.
        """
        removed = 0
        until = time.monotonic() + DROP_SECONDS
        while found := [each for each in self.snapshots(collection) if precedes(each.version, version)]:
            self._remove(found)
            removed += sum(snapshot.complete for snapshot in found)
            if time.monotonic() > until:
                raise ServiceUnavailableError("another process", f"still writes {found[0].folder}")
            time.sleep(DROP_PAUSE_SECONDS)
        return removed

    def _remove(self, snapshots: Iterable[Snapshot]) -> None:
        """Remove snapshots, manifests first: one that is half removed is no longer complete."""
        files = [file.path for snapshot in snapshots for file in snapshot.files]
        self._store.remove(sorted(files, key=lambda path: not path.endswith(f"/{MANIFEST}")))


def precedes(one: Version, other: Version) -> bool:
    """Return whether `one` is a version before `other`, or of another collection that had the same name."""
    return one.uid != other.uid or one.number < other.number


def _snapshots(files: Iterable[StoredFile]) -> Sequence[Snapshot]:
    """Return the snapshots that `files`, sorted by path, belong to, newest first; no other files."""
    found = []
    for folder, group in groupby(files, lambda file: file.path.rpartition("/")[0]):
        if name := _FOLDER.fullmatch(folder):
            version = Version(name["uid"], int(name["number"]))
            found.append(Snapshot(folder, int(name["sequence"]), version, list(group)))
    return sorted(found, key=lambda snapshot: (snapshot.sequence, snapshot.folder), reverse=True)
