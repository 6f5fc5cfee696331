"""Lance tables in a folder."""

import fcntl
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.store.adapters.fsync import DurableFiles, sync_path, sync_tree
from services.store.adapters.lance.definition_json import from_json, to_json
from services.store.adapters.lance.location import PREFIX, TableLocation
from services.store.core.errors import CollectionExistsError
from services.store.core.rows import CollectionSchema

log = logging.getLogger(__name__)


class FolderShelf:
    """`Shelf` in files. Who creates or clears away holds the lock file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def heal(self) -> None:
        """Remove tables without a definition, and definitions half written."""
        for name in ("collections", "rows"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        with self._locked():
            definitions = [self.definition(name) for name in self.names()]
            kept = {self._rows(definition) for definition in definitions if definition}
            for rows in set((self._folder / "rows").iterdir()) - kept:
                log.warning("removing %s, which belongs to no collection", rows)
                shutil.rmtree(rows, ignore_errors=True)
            for draft in (self._folder / "collections").glob("*.draft"):
                draft.unlink(missing_ok=True)

    def names(self) -> list[str]:
        """List the files."""
        return sorted(PREFIX + path.stem for path in (self._folder / "collections").glob("*.json"))

    def definition(self, name: str) -> CollectionSchema | None:
        """Read the file."""
        try:
            return from_json(self._path(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def place(self, definition: CollectionSchema) -> TableLocation:
        """Name the folder."""
        rows = self._rows(definition)
        return TableLocation(str(rows), DurableFiles(rows))

    @contextmanager
    def creating(self, definition: CollectionSchema) -> Iterator[None]:
        """Hold the lock, so that nobody takes the name meanwhile."""
        with self._locked():
            if self._path(definition.name).exists():
                raise CollectionExistsError(definition.name)
            try:
                yield
            except OSError:
                self.discard(definition)
                raise

    def publish(self, definition: CollectionSchema) -> None:
        """Sync the table, then write the file under another name and rename it."""
        sync_tree(self._rows(definition))
        path = self._path(definition.name)
        draft = path.with_suffix(".draft")
        draft.write_text(to_json(definition), encoding="utf-8")
        sync_path(draft)
        draft.rename(path)
        for folder in (path.parent, self._folder / "rows", self._folder):
            sync_path(folder)

    def retract(self, definition: CollectionSchema) -> None:
        """Remove the file."""
        path = self._path(definition.name)
        path.unlink(missing_ok=True)
        sync_path(path.parent)

    def discard(self, definition: CollectionSchema) -> None:
        """Remove the folder."""
        shutil.rmtree(self._rows(definition), ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self._folder / "collections" / f"{name.removeprefix(PREFIX)}.json"

    def _rows(self, definition: CollectionSchema) -> Path:
        return self._folder / "rows" / f"{definition.uid}.lance"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
