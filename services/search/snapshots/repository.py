"""Indexes of whole collections, saved as snapshots and loaded from them."""

import logging
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import UTC, datetime

from services.common.deadlines import deadline_in
from services.common.errors import ServiceError, UnavailableError
from services.common.versions import Version
from services.search.core.change_feed import Table
from services.search.core.portable_index import CollectionExport, PortableIndex
from services.search.snapshots.catalog import MANIFEST, Folder, Snapshot, SnapshotCatalog, precedes
from services.search.snapshots.manifest import Manifest, UnusableSnapshotError, decode, encode
from services.search.snapshots.object_store import MissingFileError
from services.search.snapshots.transfer import SnapshotReader, SnapshotWriter, TimeBudget

log = logging.getLogger(__name__)

UNAVAILABLE_SECONDS = 60.0
"""How long nothing is asked of a store that did not answer: each collection would wait for it."""

_NOTHING = (lambda: None), None

MakeIndex = Callable[[Table], PortableIndex]


class SnapshotRepository:
    """The snapshots of all collections. Calls block; those about one collection come one after another."""

    def __init__(self, catalog: SnapshotCatalog, pool: Executor) -> None:
        """Read and write files in the threads of `pool`, which is for nothing else."""
        self._catalog = catalog
        self._pool = pool
        self._unavailable_until = 0.0
        self._dropped: dict[str, Version] = {}
        self._latest: dict[str, tuple[Callable[[], PortableIndex | None], Version | None]] = {}

    def load(self, table: Table, make_index: MakeIndex, time_budget: TimeBudget) -> PortableIndex | None:
        """Return an index filled from the newest usable snapshot of `table`.

        None where there is none, or none can be read in time; the log says why.
        """
        if time.monotonic() < self._unavailable_until:
            log.warning("no snapshot of %s is looked for: they could not be read a moment ago", table.collection)
            return None
        try:
            with deadline_in(time_budget()):
                return self._load(table, make_index, time_budget)
        except (ServiceError, TimeoutError) as error:
            if isinstance(error, UnavailableError):
                self._unavailable_until = time.monotonic() + UNAVAILABLE_SECONDS
            log.warning("no snapshot of %s is loaded: %s", table.collection, error)
        except Exception:
            log.exception("no snapshot of %s is loaded", table.collection)
        return None

    def save(self, collection: str, index: PortableIndex, time_budget: TimeBudget) -> None:
        """Save a snapshot of the newest version of `index`, and remove those that it replaces.

        Raises:
            ServiceError: it cannot be written; what there was before is as it was.
            TimeoutError: no time was left; the same.
        """
        began = time.monotonic()
        with index.export() as content:
            manifest = self._save(collection, content, time_budget)
        self._latest[collection] = weakref.ref(index), manifest.version
        _log_done("saved", manifest, began)
        self._catalog.prune(collection, manifest.version.uid)

    def is_current(self, collection: str, index: PortableIndex) -> bool:
        """Return whether the snapshot that was saved or loaded last is of `index` as it is now."""
        saved, version = self._latest.get(collection, _NOTHING)
        return saved() is index and version == index.version

    def was_replaced(self, collection: str, index: PortableIndex) -> bool:
        """Return whether `index` has taken over from the one whose snapshot was saved or loaded last."""
        return collection in self._latest and self._latest[collection][0]() is not index

    def age_seconds(self, collection: str, version: Version) -> float:
        """Return how old the newest complete snapshot of the collection is; infinite where there is none.

        Of `version` itself or a later one, it counts as new.

        Raises:
            ServiceUnavailableError: they cannot be listed.
        """
        for snapshot in self._catalog.complete(collection, version.uid):
            old = (datetime.now(UTC) - snapshot.written).total_seconds()
            return 0.0 if snapshot.version.number >= version.number else old
        return float("inf")

    def collections(self) -> set[str]:
        """Return the collections that have snapshots.

        Raises:
            ServiceUnavailableError: they cannot be listed.
        """
        return self._catalog.collections()

    def remove_all(self, collection: str) -> None:
        """Remove all snapshots of a collection.

        Raises:
            ServiceUnavailableError: they cannot be removed.
        """
        self._latest.pop(collection, None)
        self._catalog.remove_all(collection)

    def drop_before(self, collection: str, version: Version) -> int:
        """Remove all snapshots of versions before `version`, also those being written; return how many were complete.

        Raises:
            ServiceUnavailableError: they cannot be removed.
        """
        self._dropped[collection] = version
        return self._catalog.drop_before(collection, version)

    def _load(self, table: Table, make_index: MakeIndex, time_budget: TimeBudget) -> PortableIndex | None:
        for snapshot in self._catalog.snapshots(table.collection):
            if snapshot.complete:
                try:
                    return self._read(snapshot, table, make_index, time_budget)
                except (UnusableSnapshotError, MissingFileError) as error:
                    self._catalog.mark_corrupt(snapshot)
                    log.warning("snapshot %s is passed over: %s", snapshot.folder, error)
        log.info("there is no snapshot of %s to load", table.collection)
        return None

    def _read(self, snapshot: Snapshot, table: Table, make_index: MakeIndex, time_budget: TimeBudget) -> PortableIndex:
        began = time.monotonic()
        folder = self._catalog.folder(snapshot)
        manifest = decode(folder.get(MANIFEST))
        manifest.check(table)
        index = make_index(table)
        SnapshotReader(folder, self._pool, time_budget).read(manifest, index)
        self._latest[table.collection] = weakref.ref(index), manifest.version
        _log_done("loaded", manifest, began)
        return index

    def _save(self, collection: str, content: CollectionExport, time_budget: TimeBudget) -> Manifest:
        folder = self._catalog.new_folder(collection, content.version)

        def remaining_seconds() -> float:
            dropped = self._dropped.get(collection)
            if dropped is not None and precedes(content.version, dropped):
                raise TimeoutError(f"what was before version {dropped} was dropped meanwhile")
            return time_budget()

        try:
            manifest = SnapshotWriter(folder, self._pool, remaining_seconds).write(collection, content)
            self._complete(folder, manifest)
            remaining_seconds()
        except BaseException:
            self._catalog.clear(folder)
            raise
        return manifest

    def _complete(self, folder: Folder, manifest: Manifest) -> None:
        """Write the manifest, unless somebody removed files of it meanwhile."""
        there = self._catalog.sizes(folder)
        for part in manifest.parts():
            if there.get(part.file) != part.size_bytes:
                raise TimeoutError(f"{part.file} was removed before the snapshot was complete")
        folder.put(MANIFEST, encode(manifest))


def _log_done(what: str, manifest: Manifest, began: float) -> None:
    seconds = time.monotonic() - began
    log.info("%s %d items of %s at %s in %.1f s", what, manifest.items, manifest.collection, manifest.version, seconds)
