"""A catalogue of Lance tables in a folder.

`collections/{name}.json` says that a collection exists, what it is, and by its uid which table under `rows` is its own.
It is the last to appear when a collection is created, and the first to go when it is dropped: a table without one is
what a crash has left, and is removed at the next start.
"""

import asyncio
import fcntl
import logging
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import lance

from services.common.errors import CollectionNotFoundError
from services.store.adapters.arrow_rows import schema_of
from services.store.adapters.definition_json import from_json, to_json
from services.store.adapters.durable_files import DurableFiles, sync_path, sync_tree
from services.store.adapters.lance_table import LanceTable, create_dataset, raise_as_ours
from services.store.adapters.threads import Threads
from services.store.errors import CollectionExistsError
from services.store.rows import Definition
from services.store.tables import Table

log = logging.getLogger(__name__)

PREFIX = "collections/"


class LanceCatalogue:
    """`Catalogue` over one folder, for several processes at a time. Who creates or clears away holds the lock file."""

    def __init__(
        self, folder: Path, *, threads: Threads, upkeep: Threads, index_cache_bytes: int, metadata_cache_bytes: int
    ) -> None:
        self._folder = folder
        self._threads = threads
        self._upkeep = upkeep
        self._session = lance.Session(  # type: ignore[attr-defined]  # exported at run time only
            index_cache_size_bytes=index_cache_bytes, metadata_cache_size_bytes=metadata_cache_bytes
        )
        self._tables: dict[str, LanceTable] = {}
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def running(self, poll_seconds: float) -> AsyncIterator[None]:
        """Clear away what a crash has left; then look for commits by other processes while the block runs."""
        await self._threads.run(self._heal)
        follower = asyncio.create_task(self._follow(poll_seconds))
        try:
            yield
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)

    async def create(self, definition: Definition) -> Table:
        """Make the table, then the file that says so."""
        async with self._turn:
            await self._threads.run(self._create, definition)
            return await self._opened(definition.name)

    async def open(self, name: str) -> Table:
        """Return the open table, or open it."""
        table = self._tables.get(name)
        if table is not None and not table.closed:
            return table
        async with self._turn:
            return await self._opened(name)

    async def names(self) -> list[str]:
        """List the files."""
        return await self._threads.run(self._names)

    async def drop(self, name: str) -> None:
        """Remove the file, then the table."""
        async with self._turn:
            table = await self._opened(name)
            await self._threads.run(self._path(name).unlink, True)
            await self._threads.run(sync_path, self._path(name).parent)
            del self._tables[name]
            await table.close()
            await self._threads.run(shutil.rmtree, self._rows(table.definition), True)

    async def _opened(self, name: str) -> LanceTable:
        table = self._tables.get(name)
        if table is None or table.closed:
            table = self._tables[name] = await self._threads.run(self._open, name)
        return table

    async def _follow(self, poll_seconds: float) -> None:
        while True:
            await asyncio.sleep(poll_seconds)
            for table in list(self._tables.values()):
                try:
                    await table.refresh()
                except CollectionNotFoundError:
                    continue  # dropped; it tells who waits
                except Exception:
                    log.exception("cannot look for commits of %s", table.definition.name)

    def _open(self, name: str) -> LanceTable:
        definition = self._definition(name)
        if definition is None:
            raise CollectionNotFoundError(name)
        rows = self._rows(definition)
        dataset = lance.dataset(str(rows), session=self._session)
        return LanceTable(
            definition,
            dataset,
            DurableFiles(rows),
            lambda: self._definition(name) == definition,
            threads=self._threads,
            upkeep=self._upkeep,
        )

    def _create(self, definition: Definition) -> None:
        with self._locked():
            if self._path(definition.name).exists():
                raise CollectionExistsError(definition.name)
            rows = self._rows(definition)
            try:
                create_dataset(str(rows), schema_of(definition), self._session)
                sync_tree(rows)
                self._publish(definition)
            except OSError as error:
                shutil.rmtree(rows, ignore_errors=True)
                raise_as_ours(error, str(self._folder))
                raise

    def _publish(self, definition: Definition) -> None:
        path = self._path(definition.name)
        draft = path.with_suffix(".draft")
        draft.write_text(to_json(definition), encoding="utf-8")
        sync_path(draft)
        draft.rename(path)
        for folder in (path.parent, self._folder / "rows", self._folder):
            sync_path(folder)

    def _definition(self, name: str) -> Definition | None:
        try:
            return from_json(self._path(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def _names(self) -> list[str]:
        return sorted(PREFIX + path.stem for path in (self._folder / "collections").glob("*.json"))

    def _heal(self) -> None:
        for name in ("collections", "rows"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        with self._locked():
            definitions = [self._definition(name) for name in self._names()]
            kept = {self._rows(definition) for definition in definitions if definition}
            for rows in set((self._folder / "rows").iterdir()) - kept:
                log.warning("removing %s, which belongs to no collection", rows)
                shutil.rmtree(rows, ignore_errors=True)
            for draft in (self._folder / "collections").glob("*.draft"):
                draft.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / "collections" / f"{name.removeprefix(PREFIX)}.json"

    def _rows(self, definition: Definition) -> Path:
        return self._folder / "rows" / f"{definition.uid}.lance"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
