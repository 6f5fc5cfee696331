"""Lance tables in a folder."""

import fcntl
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.store.adapters.fsync import FolderFiles, sync_path, sync_tree
from services.store.adapters.lance.schema_json import from_json, to_json
from services.store.adapters.lance.table_directory import PREFIX, TableLocation
from services.store.core.errors import CollectionExistsError
from services.store.core.rows import CollectionSchema

log = logging.getLogger(__name__)


class FolderTableDirectory:
    """`TableDirectory` in files. A process that creates a collection or recovers holds the lock file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def recover(self) -> None:
        for name in ("collections", "rows"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        with self._lock():
            schemas = [self.schema(name) for name in self.names()]
            known = {self._rows(schema) for schema in schemas if schema}
            for rows in set((self._folder / "rows").iterdir()) - known:
                log.warning("removing %s, which belongs to no collection", rows)
                shutil.rmtree(rows, ignore_errors=True)
            for unfinished in (self._folder / "collections").glob("*.draft"):
                unfinished.unlink(missing_ok=True)

    def names(self) -> list[str]:
        return sorted(PREFIX + path.stem for path in (self._folder / "collections").glob("*.json"))

    def schema(self, name: str) -> CollectionSchema | None:
        try:
            return from_json(self._path(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def location(self, schema: CollectionSchema) -> TableLocation:
        rows = self._rows(schema)
        return TableLocation(str(rows), FolderFiles(rows))

    @contextmanager
    def reserve(self, schema: CollectionSchema) -> Iterator[None]:
        with self._lock():
            if self._path(schema.name).exists():
                raise CollectionExistsError(schema.name)
            try:
                yield
            except OSError:
                self.delete_table(schema)
                raise

    def publish(self, schema: CollectionSchema) -> None:
        sync_tree(self._rows(schema))
        path = self._path(schema.name)
        unfinished = path.with_suffix(".draft")
        unfinished.write_text(to_json(schema), encoding="utf-8")
        sync_path(unfinished)
        unfinished.rename(path)
        for folder in (path.parent, self._folder / "rows", self._folder):
            sync_path(folder)

    def unpublish(self, schema: CollectionSchema) -> None:
        path = self._path(schema.name)
        path.unlink(missing_ok=True)
        sync_path(path.parent)

    def delete_table(self, schema: CollectionSchema) -> None:
        shutil.rmtree(self._rows(schema), ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self._folder / "collections" / f"{name.removeprefix(PREFIX)}.json"

    def _rows(self, schema: CollectionSchema) -> Path:
        return self._folder / "rows" / f"{schema.uid}.lance"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self._folder / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
