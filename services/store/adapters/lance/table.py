"""A table in Lance. Lance blocks and releases the GIL, so its calls run in threads.

One handle on the newest commit serves all reads and is never changed. Each commit goes through a handle of its own on
the commit it is based on: Lance refuses it if another writer has changed one of the rows since.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from services.common.concurrency.executors import BoundedExecutor
from services.common.errors import CollectionNotFoundError, VersionExpiredError
from services.common.index_config import IndexConfig
from services.common.versions import Version
from services.store.adapters.lance import maintenance, transactions
from services.store.adapters.lance.arrow import changed_rows, to_arrow, vector_column
from services.store.adapters.lance.dataset import INDEX_KEY_PREFIX, Dataset, open_newest, read_schema, read_tags
from services.store.adapters.lance.errors import is_missing_file, raise_if_unavailable, raise_translated
from services.store.adapters.lance.schema_json import index_to_json
from services.store.adapters.lance.snapshot import LanceSnapshot, read_batches
from services.store.adapters.lance.table_directory import DatasetFiles
from services.store.core.commit_notifier import CommitNotifier
from services.store.core.errors import RowsCorruptError
from services.store.core.rows import CollectionSchema, Row, RowFields
from services.store.core.table import BATCH_ROWS, ChangedRows, Changes, RowLookup, Snapshot, WriteConflictError

T = TypeVar("T")

READ_GRACE_SECONDS = 2.0
"""How long reads in progress have to finish before a purge removes the commits they read."""
MAX_BATCH_BYTES = 8 * 2**20


class LanceTable:
    """`Table` over one Lance dataset. `created` is the schema it was created with; commits hold its changes."""

    def __init__(
        self,
        created: CollectionSchema,
        dataset: Dataset,
        files: DatasetFiles,
        exists: Callable[[], bool],
        *,
        executor: BoundedExecutor,
        maintenance_executor: BoundedExecutor,
    ) -> None:
        self._created = created
        self._schema = read_schema(dataset, created)
        self._dataset = dataset
        self._files = files
        self._exists = exists
        self._executor = executor
        self._maintenance_executor = maintenance_executor
        self._write_lock = asyncio.Lock()
        self._notifier = CommitNotifier(created.name, dataset.version)

    @property
    def schema(self) -> CollectionSchema:
        return self._schema

    @property
    def version(self) -> int:
        return self._notifier.newest

    @property
    def closed(self) -> bool:
        """Whether the table was dropped."""
        return self._notifier.dropped

    async def close(self) -> None:
        """Mark the table as dropped, and wait for the write in progress."""
        self._notifier.mark_dropped()
        async with self._write_lock:
            return

    async def get(self, ids: Collection[str], fields: RowFields) -> RowLookup:
        return await self._newest_snapshot().get(ids, fields)

    async def page(self, after: str | None, limit: int, fields: RowFields) -> list[Row]:
        return await self._newest_snapshot().page(after, limit, fields)

    async def scan(self, fields: RowFields) -> AsyncGenerator[list[Row], None]:
        async for rows in self._newest_snapshot().scan(fields):
            yield rows

    async def count(self) -> int:
        return await self._newest_snapshot().count()

    async def write(self, rows: Sequence[Row], deletions: Sequence[str], base_version: int) -> int:
        async with self._write_lock:
            try:
                return self._adopt(await self._run(self._merge, rows, deletions, base_version))
            except WriteConflictError:
                self._adopt(await self._run(open_newest, self._dataset))  # the next attempt reads the other's commit
                raise

    async def configure(self, space: str, index: IndexConfig) -> int:
        async with self._write_lock:
            self._adopt(await self._run(open_newest, self._dataset))
            if self._schema.with_indexes({space: index}) == self._schema:
                return self.version
            entries = {INDEX_KEY_PREFIX + space: index_to_json(index)}
            return self._adopt(await self._run(transactions.update_config, self._dataset, entries, self._files))

    async def changes(self, after: int) -> Changes:
        self._notifier.raise_if_dropped()
        dataset = self._dataset
        complete = after == 0 or maintenance.read_expired_deletions(dataset) <= after <= dataset.version
        cursor = after if complete else 0
        vectors = [vector_column(space) for space in self._schema.spaces]
        row_bytes = 4 * sum(space.dimensions for space in self._schema.spaces)
        scanner = dataset.scanner(
            columns=["id", "metadata", "deleted", *vectors],
            filter=f"_row_last_updated_at_version > {cursor}" if cursor else "NOT deleted",
            batch_size=max(1, min(BATCH_ROWS, MAX_BATCH_BYTES // row_bytes)),
        )
        return Changes(dataset.version, complete, self._schema, self._read_changes(scanner))

    async def wait_for_commit(self, after: int) -> int:
        return await self._notifier.wait(after)

    async def refresh(self) -> None:
        """Look for commits by other processes."""
        if not await self._executor.run(self._exists):
            self._notifier.mark_dropped()
            return
        self._adopt(await self._run(open_newest, self._dataset))

    async def optimize(self, deletions_before: datetime, versions_before: datetime) -> None:
        async with self._write_lock:
            self._adopt(await self._maintain(maintenance.expire_deletions, deletions_before))
            self._adopt(await self._maintain(maintenance.compact))
            self._adopt(await self._maintain(maintenance.extend_index))
        await self._maintain(maintenance.expire_versions, versions_before)

    async def purge(self) -> None:
        future = datetime.now(UTC) + timedelta(days=1)
        async with self._write_lock:
            self._adopt(await self._maintain(maintenance.expire_deletions, future))
            self._adopt(await self._maintain(maintenance.rewrite_fragments_with_deletions))
            self._adopt(await self._maintain(maintenance.rebuild_index))
        await asyncio.sleep(READ_GRACE_SECONDS)
        await self._maintain(maintenance.expire_versions, future)

    async def as_of(self, version: int) -> Snapshot:
        dataset = await self._run_at(version, self._dataset.checkout_version, version)
        return LanceSnapshot(read_schema(dataset, self._created), dataset, partial(self._run_at, version))

    async def create_tag(self, name: str, version: int) -> None:
        await self._run_at(version, transactions.create_tag, self._dataset, name, version, self._files)

    async def tags(self) -> Mapping[str, int]:
        return await self._run(read_tags, self._dataset)

    async def delete_tag(self, name: str) -> bool:
        return await self._run(transactions.delete_tag, self._dataset, name, self._files)

    def _newest_snapshot(self) -> LanceSnapshot:
        return LanceSnapshot(self._schema, self._dataset, partial(self._run_at, self._dataset.version))

    def _merge(self, rows: Sequence[Row], deletions: Sequence[str], base_version: int) -> Dataset:
        table = to_arrow(self._schema, rows, deletions, datetime.now(UTC))
        return transactions.merge_rows(self._dataset, table, base_version, self._files)

    async def _read_changes(self, scanner: Any) -> AsyncGenerator[ChangedRows, None]:
        async for rows in read_batches(self._run, self._schema, scanner, changed_rows):
            if rows.ids or rows.deleted_ids:
                yield rows

    def _adopt(self, dataset: Dataset) -> int:
        """Read from `dataset` from now on, if it is newer; return its version. Nobody may change the handle again."""
        version: int = dataset.version
        if version > self._dataset.version:
            self._dataset = dataset
            self._schema = read_schema(dataset, self._created)
            self._notifier.notify(version)
        return version

    async def _maintain(self, work: Callable[..., None], *args: Any) -> Dataset:
        """Run `work` on a new handle on the newest commit; return the handle."""
        self._notifier.raise_if_dropped()
        async with self._translate_errors():
            dataset = await self._maintenance_executor.run(open_newest, self._dataset)
            await self._maintenance_executor.run(work, dataset, *args)
            await self._maintenance_executor.run(self._files.sync, dataset)
        return dataset

    async def _run(self, work: Callable[..., T], *args: Any) -> T:
        self._notifier.raise_if_dropped()
        async with self._translate_errors():
            return await self._executor.run(work, *args)

    async def _run_at(self, version: int, work: Callable[..., T], *args: Any) -> T:
        """Run `work` on commit `version`. A missing file means that it is expired, or for the newest one corrupt."""
        try:
            return await self._run(work, *args)
        except (OSError, ValueError) as error:
            if not is_missing_file(error):
                raise
            if version == await self._run(lambda: self._dataset.latest_version):
                raise RowsCorruptError(self._schema.name) from error
            raise VersionExpiredError(self._schema.name, str(Version(self._schema.uid, version))) from error

    @asynccontextmanager
    async def _translate_errors(self) -> AsyncIterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # Lance's and Arrow's errors are subclasses of these
            raise_if_unavailable(error)
            if self._notifier.dropped or not await self._executor.run(self._exists):
                raise CollectionNotFoundError(self._schema.name) from error
            raise_translated(error, self._dataset.uri)
            raise
