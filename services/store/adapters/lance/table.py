"""A table in Lance. Lance blocks and releases the GIL, so its calls run in threads.

One handle on the newest commit serves all reads; handles are never changed once others see them. Each commit goes
through a handle of its own on the commit it is based on: where another writer has touched one of the rows since, Lance
refuses it.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import lance
import pyarrow as pa
import pyarrow.compute as pc

from services.common.concurrency.executors import BoundedExecutor
from services.common.errors import (
    CollectionNotFoundError,
    ServiceUnavailableError,
    StorageFullError,
    VersionExpiredError,
)
from services.common.index_config import IndexConfig
from services.common.versions import Version
from services.store.adapters.lance.arrow import (
    MOMENT,
    changed_rows,
    columns_of,
    from_arrow,
    from_batch,
    to_arrow,
    vector_column,
)
from services.store.adapters.lance.compaction import FRAGMENT_ROWS, Fragment, worth_merging
from services.store.adapters.lance.definition_json import index_from_json, index_to_json
from services.store.adapters.lance.location import Files, TableLocation
from services.store.core.commit_notifier import CommitNotifier
from services.store.core.errors import RowsCorruptError
from services.store.core.rows import CollectionSchema, Parts, Row
from services.store.core.table import BATCH_ROWS, ChangedRows, Changes, RowLookup, Snapshot, WriteConflictError

log = logging.getLogger(__name__)

Dataset = Any  # lance.LanceDataset, which has no types
T = TypeVar("T")
Run = Callable[..., Awaitable[Any]]

ID_INDEX = "id_idx"
FORGOTTEN = "medley.deletions_forgotten_up_to"
INDEX_OF = "medley.index."
LOOKUP_IDS = 10_000
READS_SECONDS = 2.0
TAG_READS = 20
BATCH_BYTES = 8 * 2**20
UNINDEXED_ROWS = 1000
UNINDEXED_FRAGMENTS = 4
FULL_BUCKET = ("StorageFull", "QuotaExceeded", "507 Insufficient Storage")
CONFLICTS = ("Too many concurrent writers", "ommit conflict", "Incompatible transaction")


def create_dataset(place: TableLocation, schema: pa.Schema, session: Any) -> Dataset:
    """Create an empty table with its index."""
    dataset = lance.write_dataset(
        schema.empty_table(),
        place.uri,
        schema=schema,
        mode="create",
        enable_stable_row_ids=True,
        session=session,
        storage_options=place.options or None,
    )
    dataset.create_scalar_index("id", "BTREE", name=ID_INDEX)
    return dataset


def open_dataset(place: TableLocation, session: Any) -> Dataset:
    """Open the newest commit of a table."""
    return lance.dataset(place.uri, session=session, storage_options=place.options or None)


class LanceTable:
    """`Table` over one Lance dataset. The definition it is given is that of the creation; commits hold its changes."""

    def __init__(
        self,
        definition: CollectionSchema,
        dataset: Dataset,
        files: Files,
        exists: Callable[[], bool],
        *,
        executor: BoundedExecutor,
        upkeep: BoundedExecutor,
    ) -> None:
        self._created = definition
        self._definition = _definition_at(dataset, definition)
        self._dataset = dataset
        self._files = files
        self._exists = exists
        self._executor = executor
        self._upkeep = upkeep
        self._turn = asyncio.Lock()
        self._bell = CommitNotifier(definition.name, dataset.version)

    @property
    def definition(self) -> CollectionSchema:
        """The collection as of the newest commit known here."""
        return self._definition

    @property
    def version(self) -> int:
        """The newest commit known here."""
        return self._bell.newest

    @property
    def closed(self) -> bool:
        """Whether the table was dropped."""
        return self._bell.dropped

    async def close(self) -> None:
        """Be dropped, once the write under way is done."""
        self._bell.drop()
        async with self._turn:
            return

    async def get(self, ids: Collection[str], parts: Parts) -> RowLookup:
        """Look the ids up in the index."""
        return await self._newest().get(ids, parts)

    async def page(self, after: str | None, limit: int, parts: Parts) -> list[Row]:
        """Find the ids first, then their rows."""
        return await self._newest().page(after, limit, parts)

    async def scan(self, parts: Parts) -> AsyncGenerator[list[Row], None]:
        """Read the commit that is the newest at the first step."""
        async for rows in self._newest().scan(parts):
            yield rows

    async def count(self) -> int:
        """Let Lance count."""
        return await self._newest().count()

    async def write(self, rows: Sequence[Row], deletions: Sequence[str], based_on: int) -> int:
        """Merge by id, removals as rows marked deleted."""
        async with self._turn:
            try:
                return self._adopt(await self._run(self._write, rows, deletions, based_on))
            except WriteConflictError:
                self._adopt(
                    await self._run(_newest_commit, self._dataset)
                )  # so that the next attempt sees who came first
                raise

    async def configure(self, space: str, index: IndexConfig) -> int:
        """Write the choice into the configuration that each commit carries."""
        async with self._turn:
            self._adopt(await self._run(_newest_commit, self._dataset))
            if self._definition.indexed({space: index}) == self._definition:
                return self.version
            entries = {INDEX_OF + space: index_to_json(index)}
            return self._adopt(await self._run(_configure, self._dataset, entries, self._files))

    async def changes(self, after: int) -> Changes:
        """Ask for rows last updated by a later commit."""
        self._bell.check()
        dataset = self._dataset
        forgotten = int(dataset.config().get(FORGOTTEN, 0))
        complete = after == 0 or forgotten <= after <= dataset.version
        cursor = after if complete else 0
        vectors = [vector_column(space) for space in self._definition.spaces]
        row_bytes = 4 * sum(space.dimensions for space in self._definition.spaces)
        scanner = dataset.scanner(
            columns=["id", "metadata", "deleted", *vectors],
            filter=f"_row_last_updated_at_version > {cursor}" if cursor else "NOT deleted",
            batch_size=max(1, min(BATCH_ROWS, BATCH_BYTES // row_bytes)),
        )
        return Changes(dataset.version, complete, self._definition, self._changed(scanner))

    async def newer_than(self, version: int) -> int:
        """Wait for a commit by us, or one that `refresh` finds."""
        return await self._bell.newer_than(version)

    async def refresh(self) -> None:
        """Look for commits by other processes."""
        if not await self._executor.run(self._exists):
            self._bell.drop()
            return
        self._adopt(await self._run(_newest_commit, self._dataset))

    async def tidy(self, forget_deletions_before: datetime, forget_versions_before: datetime) -> None:
        """Forget deletions, compact and index, with no write of ours meanwhile; then forget commits."""
        async with self._turn:
            for work in (_forget_deletions, _compact, _index):
                self._adopt(await self._tidy(work, forget_deletions_before))
        await self._tidy(_forget_versions, forget_versions_before)

    async def purge(self) -> None:
        """Rewrite every file with removed rows and the index, then forget all commits, once short reads are done."""
        now = datetime.now(UTC) + timedelta(days=1)
        async with self._turn:
            for work in (_forget_deletions, _rewrite_all, _index_anew):
                self._adopt(await self._tidy(work, now))
        await asyncio.sleep(READS_SECONDS)
        await self._tidy(_forget_versions, now)

    async def as_of(self, version: int) -> Snapshot:
        """Open the commit."""
        dataset = await self._run_in_past(version, self._dataset.checkout_version, version)
        definition = _definition_at(dataset, self._created)
        return LanceSnapshot(definition, dataset, partial(self._run_in_past, version))

    async def tag(self, name: str, version: int) -> None:
        """Let Lance keep the commit."""
        await self._run_in_past(version, self._tag, name, version)

    async def tags(self) -> Mapping[str, int]:
        """Ask Lance."""
        return await self._run(_tags, self._dataset)

    async def untag(self, name: str) -> bool:
        """Let Lance keep the commit no longer."""
        return await self._run(self._untag, name)

    def _newest(self) -> "LanceSnapshot":
        return LanceSnapshot(self._definition, self._dataset, partial(self._run_in_past, self._dataset.version))

    def _tag(self, name: str, version: int) -> None:
        if name not in _tags(self._dataset):
            self._dataset.checkout_version(version)
            dataset = _newest_commit(self._dataset)  # of our own: who reads has borrowed the other
            dataset.tags.create(name, version)
            self._files.sync(dataset)

    def _untag(self, name: str) -> bool:
        if name not in _tags(self._dataset):
            return False
        dataset = _newest_commit(self._dataset)
        dataset.tags.delete(name)
        self._files.sync(dataset)
        return True

    async def _run_in_past(self, version: int, work: Callable[..., T], *args: Any) -> T:
        """Run `work` on commit `version`; where Lance lacks some of an old one, it is no longer kept."""
        try:
            return await self._run(work, *args)
        except (OSError, ValueError) as error:
            if "not found" not in str(error).lower() and "does not exist" not in str(error):
                raise
            if version == await self._run(lambda: self._dataset.latest_version):
                raise RowsCorruptError(self._definition.name) from error
            raise VersionExpiredError(self._definition.name, str(Version(self._definition.uid, version))) from error

    async def _tidy(self, work: Callable[[Dataset, datetime], None], before: datetime) -> Dataset:
        self._bell.check()
        async with self._errors():
            dataset = await self._upkeep.run(_newest_commit, self._dataset)
            await self._upkeep.run(work, dataset, before)
            await self._upkeep.run(self._files.sync, dataset)
        return dataset

    async def _changed(self, scanner: Any) -> AsyncGenerator[ChangedRows, None]:
        async for rows in _batches(self._run, self._definition, scanner, changed_rows):
            if rows.ids or rows.deleted_ids:
                yield rows

    def _write(self, rows: Sequence[Row], deletions: Sequence[str], based_on: int) -> Dataset:
        table = to_arrow(self._definition, rows, deletions, datetime.now(UTC))
        return _merge(self._dataset, table, based_on, self._files)

    async def _run(self, work: Callable[..., T], *args: Any) -> T:
        self._bell.check()
        async with self._errors():
            return await self._executor.run(work, *args)

    def _adopt(self, dataset: Dataset) -> int:
        """Read from `dataset`, which nobody changes any more, if it is newer; return its commit."""
        version: int = dataset.version
        if version > self._dataset.version:
            self._dataset = dataset
            self._definition = _definition_at(dataset, self._created)
            self._bell.committed(version)
        return version

    @asynccontextmanager
    async def _errors(self) -> AsyncIterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # Lance's and Arrow's are subclasses of these
            raise_if_away(error)
            if self._bell.dropped or not await self._executor.run(self._exists):
                raise CollectionNotFoundError(self._definition.name) from error
            raise_as_ours(error, self._dataset.uri)
            raise


class LanceSnapshot:
    """`Snapshot` over a handle that nobody changes; `run` runs blocking work, and translates its errors."""

    def __init__(self, definition: CollectionSchema, dataset: Dataset, run: Run) -> None:
        self._definition = definition
        self._dataset = dataset
        self._run = run

    @property
    def definition(self) -> CollectionSchema:
        """The collection as of the commit."""
        return self._definition

    @property
    def version(self) -> int:
        """The commit."""
        version: int = self._dataset.version
        return version

    async def get(self, ids: Collection[str], parts: Parts) -> RowLookup:
        """Look the ids up in the index."""
        columns = columns_of(self._definition, parts)
        rows = await self._run(lambda: from_arrow(self._definition, _lookup(self._dataset, list(ids), columns)))
        return RowLookup(self.version, {row.id: row for row in rows})

    async def page(self, after: str | None, limit: int, parts: Parts) -> list[Row]:
        """Find the ids first, then their rows."""
        columns = columns_of(self._definition, parts)
        rows: list[Row] = await self._run(
            lambda: from_arrow(self._definition, _page(self._dataset, after, limit, columns))
        )
        return rows

    async def scan(self, parts: Parts) -> AsyncGenerator[list[Row], None]:
        """Read batch by batch."""
        columns = columns_of(self._definition, parts)
        scanner = self._dataset.scanner(columns=columns, filter="NOT deleted", batch_size=BATCH_ROWS)
        async for rows in _batches(self._run, self._definition, scanner, from_batch):
            yield rows

    async def count(self) -> int:
        """Let Lance count."""
        count: int = await self._run(self._dataset.count_rows, "NOT deleted")
        return count


async def _batches(
    run: Run, definition: CollectionSchema, scanner: Any, decoded: Callable[[CollectionSchema, pa.RecordBatch], T]
) -> AsyncGenerator[T, None]:
    batches = await run(lambda: (decoded(definition, each) for each in scanner.to_batches()))
    while (batch := await run(next, batches, None)) is not None:
        yield batch


def _tags(dataset: Dataset) -> dict[str, int]:
    """Return the tags; where one goes away while they are read one by one, they are read again."""
    for _ in range(TAG_READS):
        try:
            return {name: tag["version"] for name, tag in dataset.tags.list().items()}
        except (OSError, ValueError) as error:
            if "/_refs/tags/" not in str(error) or "not found" not in str(error).lower():
                raise
            gone = error
    raise gone


def raise_if_away(error: Exception) -> None:
    """Raise what one of Lance's errors tells of an object store that does not answer as it should."""
    text = str(error)
    if "Generic S3 error" not in text or any(words in text for words in CONFLICTS):
        return
    if any(words in text for words in FULL_BUCKET):
        raise StorageFullError("the bucket") from error
    raise ServiceUnavailableError("object store", _told(text)) from error


def raise_as_ours(error: Exception, uri: str) -> None:
    """Raise what one of Lance's errors means to us; Lance tells them apart by their text alone."""
    raise_if_away(error)
    text = str(error)
    if any(words in text for words in CONFLICTS):
        raise WriteConflictError from error
    if "No space left on device" in text or "Disk quota exceeded" in text:
        raise StorageFullError(uri) from error


def _told(text: str) -> str:
    """Return what S3 said, where Lance passes it on, or that it said nothing."""
    said = re.search(r"<Code>(\w+)</Code>", text) or re.search(r"status code:? (\d+ \w+)", text)
    return f"says {said[1]}" if said else "does not answer"


def _lookup(dataset: Dataset, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """Return the rows of `ids`, in any order. Marked ones are left out here: Lance would take half as long again."""
    lots = [ids[start : start + LOOKUP_IDS] for start in range(0, len(ids), LOOKUP_IDS)] or [[]]
    found = pa.concat_tables(
        dataset.to_table(columns=[*columns, "deleted"], filter=f"id IN ({', '.join(map(_quoted, lot)) or 'NULL'})")
        for lot in lots
    )
    return found.filter(pc.invert(found.column("deleted"))).drop_columns("deleted")


def _page(dataset: Dataset, after: str | None, limit: int, columns: Sequence[str]) -> pa.Table:
    """Return the first `limit` rows with ids over `after`, by id; finds the ids first, so as to read no more rows."""
    above = "" if after is None else f" AND id > {_quoted(after)}"
    ids = dataset.scanner(columns=["id"], filter=f"NOT deleted{above}", order_by=["id"], limit=limit).to_table()
    return _lookup(dataset, ids.column("id").to_pylist(), columns).sort_by("id")


def _merge(dataset: Dataset, rows: pa.Table, based_on: int, files: Files) -> Dataset:
    """Commit `rows` by id; return a handle on the commit.

    Without an index Lance compares the keys themselves, and so notices when another writer added the same one.
    """
    base = _commit_to_build_on(dataset, based_on)
    merge = base.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
    merge.use_index(False).conflict_retries(0).execute(rows)
    files.sync(base)
    return base


def _commit_to_build_on(dataset: Dataset, version: int) -> Dataset:
    try:
        return dataset.checkout_version(version)
    except (OSError, ValueError) as error:
        if version == dataset.latest_version:
            raise
        raise WriteConflictError from error  # tidied away since it was read: there are newer ones


def _definition_at(dataset: Dataset, created: CollectionSchema) -> CollectionSchema:
    """Return the definition as of the commit that `dataset` is open at."""
    entries = dataset.config()
    keys = {space.name: INDEX_OF + space.name for space in created.spaces}
    return created.indexed({name: index_from_json(entries[key]) for name, key in keys.items() if key in entries})


def _configure(dataset: Dataset, entries: Mapping[str, str], files: Files) -> Dataset:
    """Commit `entries` of the configuration, which rows written meanwhile do not hinder; return a handle on it."""
    base = _newest_commit(dataset)
    base.update_config(entries)
    files.sync(base)
    return base


def _newest_commit(dataset: Dataset) -> Dataset:
    """Return a handle of our own on the newest commit."""
    return dataset.checkout_version(dataset.latest_version)


def _forget_deletions(dataset: Dataset, before: datetime) -> None:
    """Remove the traces of deletions from before then; that they are gone is written down first."""
    old = dataset.to_table(
        columns=["_row_last_updated_at_version"],
        filter=(pc.field("deleted")) & (pc.field("updated") < pa.scalar(before, MOMENT)),
    ).column(0)
    if len(old):
        newest = pc.max(old).as_py()
        dataset.update_config({FORGOTTEN: str(max(newest, int(dataset.config().get(FORGOTTEN, 0))))})
        dataset.delete(f"deleted AND _row_last_updated_at_version <= {newest}")


def _compact(dataset: Dataset, before: datetime) -> None:
    """Merge small fragments, and rewrite those with much deleted; see `worth_merging`."""
    fragments = [
        Fragment(fragment.fragment_id, fragment.physical_rows, fragment.num_deletions)
        for fragment in dataset.get_fragments()
    ]
    chosen = worth_merging(fragments)
    if chosen:
        others = [fragment.number for fragment in fragments if fragment.number not in chosen]
        dataset.optimize.compact_files(target_rows_per_fragment=FRAGMENT_ROWS, excluded_fragment_ids=others)


def _rewrite_all(dataset: Dataset, before: datetime) -> None:
    """Rewrite every file with a deleted row."""
    clean = [each.fragment_id for each in dataset.get_fragments() if not each.num_deletions]
    dataset.optimize.compact_files(
        target_rows_per_fragment=FRAGMENT_ROWS,
        materialize_deletions=True,
        materialize_deletions_threshold=0.0,
        excluded_fragment_ids=clean,
    )


def _index_anew(dataset: Dataset, before: datetime) -> None:
    """Make the index from the rows there are: a merged one may hold ids that are gone."""
    dataset.create_scalar_index("id", "BTREE", name=ID_INDEX, replace=True)


def _index(dataset: Dataset, before: datetime) -> None:
    """Index the rows written since the last time, once it takes a while to look through them."""
    index = dataset.stats.index_stats(ID_INDEX)
    few_rows = index["num_unindexed_rows"] <= UNINDEXED_ROWS + index["num_indexed_rows"] // 50
    if not few_rows or index["num_unindexed_fragments"] > UNINDEXED_FRAGMENTS:
        dataset.optimize.optimize_indices()


def _forget_versions(dataset: Dataset, before: datetime) -> None:
    """Remove the commits from before then, but for the newest and those with a tag."""
    older_than = max(timedelta(0), datetime.now(UTC) - before)
    dataset.cleanup_old_versions(older_than=older_than, error_if_tagged_old_versions=False)


def _quoted(text: str) -> str:
    """Return `text` as a literal of Lance's SQL, which knows no other escape."""
    return "'" + text.replace("'", "''") + "'"
