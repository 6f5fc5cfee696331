"""Rows kept in memory are told as of the newest commit, and take no more memory than allowed."""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.common.errors import CollectionNotFoundError, ServiceUnavailableError
from services.store.adapters.memory_tables import MemoryCatalog
from services.store.core.row_cache import CACHED_FIELDS, ROW_BYTES, CachedCatalog, CachedTable, RowCache
from services.store.core.rows import ALL_FIELDS, NO_FIELDS, RowField, RowFields
from services.store.core.table import ChangedRows, Changes, RowLookup, Table
from tests.unit.store.rows import PHOTOS, row
from tests.waiting import HANG_SECONDS

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class RecordingTable:
    """A table that notes which ids it is asked for."""

    def __init__(self, table: Table) -> None:
        self.schema = table.schema
        self.requested: list[set[str]] = []
        self.inner = table

    @property
    def version(self) -> int:
        return self.inner.version

    async def get(self, ids: Collection[str], fields: RowFields) -> RowLookup:
        self.requested.append(set(ids))
        return await self.inner.get(ids, fields)

    async def wait_for_commit(self, version: int) -> int:
        return await self.inner.wait_for_commit(version)

    async def changes(self, after: int) -> Changes:
        return await self.inner.changes(after)

    async def write(self, *arguments: object) -> int:
        return await self.inner.write(*arguments)  # type: ignore[arg-type]  # as they came


@pytest.fixture
async def table() -> Table:
    table = await MemoryCatalog().create(PHOTOS)
    await table.write([row("a", text="one"), row("b", text="two")], [], table.version)
    return table


@pytest.fixture
def recording(table: Table) -> RecordingTable:
    return RecordingTable(table)


@pytest.fixture
def cached(recording: RecordingTable) -> CachedTable:
    return CachedTable(recording, RowCache(10**6))  # type: ignore[arg-type]  # as much of a table as is used


async def texts(table: Table, ids: list[str]) -> dict[str, str | None]:
    return {row_id: each.text for row_id, each in (await table.get(ids, CACHED_FIELDS)).rows.items()}


async def test_a_row_is_looked_up_once(cached: CachedTable, recording: RecordingTable) -> None:
    assert await texts(cached, ["a"]) == {"a": "one"}
    assert await texts(cached, ["a", "b", "c"]) == {"a": "one", "b": "two"}
    assert recording.requested == [{"a"}, {"b", "c"}]


async def test_a_commit_by_another_is_seen_and_leaves_the_other_rows(
    cached: CachedTable, recording: RecordingTable, table: Table
) -> None:
    await texts(cached, ["a", "b"])
    await table.write([row("a", text="new")], [], table.version)
    recording.requested.clear()
    assert await texts(cached, ["a", "b"]) == {"a": "new", "b": "two"}
    assert recording.requested == [{"a"}]


async def test_a_write_brings_its_rows_along(cached: CachedTable, recording: RecordingTable) -> None:
    await texts(cached, ["a", "b"])
    version = await cached.write([row("a", text="new"), row("c", text="three")], ["b"], cached.version)
    recording.requested.clear()
    assert await texts(cached, ["a", "c"]) == {"a": "new", "c": "three"}
    assert recording.requested == []
    assert await texts(cached, ["b"]) == {}
    assert (await cached.get(["a"], CACHED_FIELDS)).version == version


async def test_a_write_on_an_older_commit_is_told_whole(cached: CachedTable, table: Table) -> None:
    base_version = cached.version
    await texts(cached, ["a", "b"])
    await table.write([row("a", text="of another")], [], base_version)
    await cached.write([row("b", text="new")], [], base_version)
    assert await texts(cached, ["a", "b"]) == {"a": "of another", "b": "new"}


async def test_commits_that_change_no_row_leave_all(cached: CachedTable, recording: RecordingTable) -> None:
    await texts(cached, ["a", "b"])
    await recording.inner.optimize(NOW, NOW)
    recording.requested.clear()
    assert await texts(cached, ["a", "b"]) == {"a": "one", "b": "two"}
    assert recording.requested == []


async def test_what_cannot_be_told_apart_is_forgotten(cached: CachedTable, table: Table) -> None:
    await texts(cached, ["a", "b"])
    await table.write([], ["a"], table.version)
    await table.optimize(datetime.max.replace(tzinfo=UTC), NOW)
    assert await texts(cached, ["a", "b"]) == {"b": "two"}


async def test_an_answer_is_of_one_commit(table: Table) -> None:
    class ConflictingTable(RecordingTable):
        async def get(self, ids: Collection[str], fields: RowFields) -> RowLookup:
            if len(self.requested) == 1:
                await table.write([row("a", text="new")], [], table.version)
            return await super().get(ids, fields)

    cached = CachedTable(ConflictingTable(table), RowCache(10**6))  # type: ignore[arg-type]
    await texts(cached, ["a"])
    assert await texts(cached, ["a", "b"]) == {"a": "new", "b": "two"}


async def test_readers_next_to_writers_never_see_an_older_row(cached: CachedTable) -> None:
    async def read() -> None:
        last = 0
        while last < 200:
            found = await cached.get(["n", "a"], CACHED_FIELDS)
            number = int(found.rows["n"].text or 0) if "n" in found.rows else 0
            assert number >= last
            last = number
            await asyncio.sleep(0)

    async def write() -> None:
        for number in range(1, 201):
            writer = cached if number % 3 else cached._table  # every third is another's
            await writer.write([row("n", text=str(number))], [], cached.version)
            await asyncio.sleep(0)

    async with asyncio.timeout(HANG_SECONDS), asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(read())
        tasks.create_task(write())


async def test_what_was_not_asked_for_is_left_out(cached: CachedTable) -> None:
    await texts(cached, ["a"])
    assert (await cached.get(["a"], NO_FIELDS)).rows["a"].text is None
    assert (await cached.get(["a"], frozenset({RowField.TEXT}))).rows["a"].text == "one"


async def test_vectors_are_not_kept(cached: CachedTable, recording: RecordingTable) -> None:
    for _ in range(2):
        await cached.get(["a"], ALL_FIELDS)
    assert recording.requested == [{"a"}, {"a"}]


async def test_the_row_asked_for_longest_ago_goes_first(recording: RecordingTable) -> None:
    cached = CachedTable(recording, RowCache(ROW_BYTES + 100))  # type: ignore[arg-type]
    for row_id in ("a", "b", "b", "a"):
        await texts(cached, [row_id])
    assert recording.requested == [{"a"}, {"b"}, {"a"}]


class TestCatalogue:
    @pytest.fixture
    async def inner(self) -> MemoryCatalog:
        return MemoryCatalog()

    @pytest.fixture
    async def cache(self) -> RowCache:
        return RowCache(ROW_BYTES * 100)

    @pytest.fixture
    async def catalog(self, inner: MemoryCatalog, cache: RowCache) -> AsyncIterator[CachedCatalog]:
        cached = CachedCatalog(inner, cache)
        async with cached.loading():
            yield cached

    async def test_a_table_opened_is_read_into_memory(
        self, inner: MemoryCatalog, catalog: CachedCatalog, cache: RowCache
    ) -> None:
        table = await inner.create(PHOTOS)
        await table.write([row(f"i{number}") for number in range(50)], [], table.version)
        assert await catalog.open(PHOTOS.name) is await catalog.open(PHOTOS.name)
        await asyncio.gather(*catalog._loading)
        assert len(cache.get(PHOTOS.uid, [f"i{number}" for number in range(50)])) == 50

    async def test_no_more_than_there_is_room_for(self, inner: MemoryCatalog, catalog: CachedCatalog) -> None:
        table = await inner.create(PHOTOS)
        await table.write([row(f"i{number}") for number in range(5000)], [], table.version)
        opened = await catalog.open(PHOTOS.name)
        await asyncio.gather(*catalog._loading)
        assert len((await opened.get([f"i{number}" for number in range(200)], CACHED_FIELDS)).rows) == 200

    async def test_nothing_is_told_of_a_collection_dropped(self, catalog: CachedCatalog, cache: RowCache) -> None:
        table = await catalog.create(PHOTOS)
        await table.write([row("a")], [], table.version)
        await catalog.drop(PHOTOS.name)
        assert cache.get(PHOTOS.uid, ["a"]) == {}
        with pytest.raises(CollectionNotFoundError):
            await table.get(["a"], CACHED_FIELDS)


class PausingTable(RecordingTable):
    """A table whose answers are on their way until they are let go: rows looked up, and what has changed."""

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self.release_rows, self.release_changes = asyncio.Event(), asyncio.Event()

    async def get(self, ids: Collection[str], fields: RowFields) -> RowLookup:
        found = await super().get(ids, fields)
        await self.release_rows.wait()
        return found

    async def changes(self, after: int) -> Changes:
        changes = await super().changes(after)
        return replace(changes, batches=self._hold(changes.batches))

    async def write(self, *arguments: object) -> int:
        version = await super().write(*arguments)
        await self.release_rows.wait()
        return version

    async def _hold(self, batches: AsyncIterator[ChangedRows]) -> AsyncIterator[ChangedRows]:
        async for batch in batches:
            yield batch
            await self.release_changes.wait()


@pytest.fixture
def pausing(table: Table) -> PausingTable:
    return PausingTable(table)


async def evict_while(pausing: PausingTable, cached: CachedTable, late: Coroutine[Any, Any, object]) -> None:
    """Let another process change "b" while `late` is on its way; it arrives while the cache learns what changed."""
    arriving = asyncio.create_task(late)
    await asyncio.sleep(0)
    await pausing.inner.write([row("b", text="newest")], [], pausing.inner.version)
    evicting = asyncio.create_task(cached.get(["a"], CACHED_FIELDS))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    pausing.release_rows.set()
    await arriving
    pausing.release_changes.set()
    await evicting


@pytest.mark.parametrize("late", ["read", "write"])
async def test_what_arrives_while_the_cache_catches_up_is_not_taken_for_the_newest(
    pausing: PausingTable, late: str
) -> None:
    cached = CachedTable(pausing, RowCache(10**6))  # type: ignore[arg-type]  # as much of a table as is used
    pausing.release_rows.set()
    await cached.get(["a"], CACHED_FIELDS)
    pausing.release_rows.clear()
    written = cached.write([row("b", text="newer")], [], pausing.version)
    read = cached.get(["b"], CACHED_FIELDS)
    unused, arriving = (written, read) if late == "read" else (read, written)
    unused.close()
    await evict_while(pausing, cached, arriving)
    assert (await cached.get(["b"], CACHED_FIELDS)).rows["b"].text == "newest"


async def test_a_cache_that_could_not_catch_up_knows_what_it_knew(
    recording: RecordingTable, cached: CachedTable
) -> None:
    await cached.get(["a", "b"], CACHED_FIELDS)
    await recording.inner.write([row("b", text="newest")], [], recording.version)
    asked = list(recording.requested)

    async def away(after: int) -> Changes:
        raise ServiceUnavailableError("the store", "is away")

    ours, recording.changes = recording.changes, away  # type: ignore[method-assign]  # for once
    with pytest.raises(ServiceUnavailableError):
        await cached.get(["a"], CACHED_FIELDS)
    recording.changes = ours  # type: ignore[method-assign]  # again
    assert (await cached.get(["a", "b"], CACHED_FIELDS)).rows["b"].text == "newest"
    assert recording.requested == [*asked, {"b"}]


async def test_reading_into_memory_late_takes_no_older_row_for_the_newest(table: Table) -> None:
    cached = CachedTable(table, RowCache(10**6))
    await cached.get(["a", "b"], CACHED_FIELDS)
    await table.write([], ["a"], table.version)
    await cached.load()
    assert set((await cached.get(["a", "b"], CACHED_FIELDS)).rows) == {"b"}
