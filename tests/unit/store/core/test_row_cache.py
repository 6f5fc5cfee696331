"""Rows kept in memory are told as of the newest commit, and take no more memory than allowed."""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.common.errors import CollectionNotFoundError, ServiceUnavailableError
from services.store.adapters.memory_tables import MemoryCatalogue
from services.store.core.row_cache import KEPT, ROW_BYTES, CachedCatalog, CachedTable, RowCache
from services.store.core.rows import EVERYTHING, NOTHING, Part, Parts
from services.store.core.table import ChangedRows, Changes, RowLookup, Table
from tests.unit.store.rows import PHOTOS, row
from tests.waiting import HANG_SECONDS

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Watched:
    """A table that notes which ids it is asked for."""

    def __init__(self, table: Table) -> None:
        self.definition = table.definition
        self.asked: list[set[str]] = []
        self.inner = table

    @property
    def version(self) -> int:
        return self.inner.version

    async def get(self, ids: Collection[str], parts: Parts) -> RowLookup:
        self.asked.append(set(ids))
        return await self.inner.get(ids, parts)

    async def newer_than(self, version: int) -> int:
        return await self.inner.newer_than(version)

    async def changes(self, after: int) -> Changes:
        return await self.inner.changes(after)

    async def write(self, *arguments: object) -> int:
        return await self.inner.write(*arguments)  # type: ignore[arg-type]  # as they came


@pytest.fixture
async def table() -> Table:
    table = await MemoryCatalogue().create(PHOTOS)
    await table.write([row("a", text="one"), row("b", text="two")], [], table.version)
    return table


@pytest.fixture
def watched(table: Table) -> Watched:
    return Watched(table)


@pytest.fixture
def cached(watched: Watched) -> CachedTable:
    return CachedTable(watched, RowCache(10**6))  # type: ignore[arg-type]  # as much of a table as is used


async def texts(table: Table, ids: list[str]) -> dict[str, str | None]:
    return {row_id: each.text for row_id, each in (await table.get(ids, KEPT)).rows.items()}


async def test_a_row_is_looked_up_once(cached: CachedTable, watched: Watched) -> None:
    assert await texts(cached, ["a"]) == {"a": "one"}
    assert await texts(cached, ["a", "b", "c"]) == {"a": "one", "b": "two"}
    assert watched.asked == [{"a"}, {"b", "c"}]


async def test_a_commit_by_another_is_seen_and_leaves_the_other_rows(
    cached: CachedTable, watched: Watched, table: Table
) -> None:
    await texts(cached, ["a", "b"])
    await table.write([row("a", text="new")], [], table.version)
    watched.asked.clear()
    assert await texts(cached, ["a", "b"]) == {"a": "new", "b": "two"}
    assert watched.asked == [{"a"}]


async def test_a_write_brings_its_rows_along(cached: CachedTable, watched: Watched) -> None:
    await texts(cached, ["a", "b"])
    version = await cached.write([row("a", text="new"), row("c", text="three")], ["b"], cached.version)
    watched.asked.clear()
    assert await texts(cached, ["a", "c"]) == {"a": "new", "c": "three"}
    assert watched.asked == []
    assert await texts(cached, ["b"]) == {}
    assert (await cached.get(["a"], KEPT)).version == version


async def test_a_write_on_an_older_commit_is_told_whole(cached: CachedTable, table: Table) -> None:
    based_on = cached.version
    await texts(cached, ["a", "b"])
    await table.write([row("a", text="of another")], [], based_on)
    await cached.write([row("b", text="new")], [], based_on)
    assert await texts(cached, ["a", "b"]) == {"a": "of another", "b": "new"}


async def test_commits_that_change_no_row_leave_all(cached: CachedTable, watched: Watched) -> None:
    await texts(cached, ["a", "b"])
    await watched.inner.tidy(NOW, NOW)
    watched.asked.clear()
    assert await texts(cached, ["a", "b"]) == {"a": "one", "b": "two"}
    assert watched.asked == []


async def test_what_cannot_be_told_apart_is_forgotten(cached: CachedTable, table: Table) -> None:
    await texts(cached, ["a", "b"])
    await table.write([], ["a"], table.version)
    await table.tidy(datetime.max.replace(tzinfo=UTC), NOW)
    assert await texts(cached, ["a", "b"]) == {"b": "two"}


async def test_an_answer_is_of_one_commit(table: Table) -> None:
    class Late(Watched):
        async def get(self, ids: Collection[str], parts: Parts) -> RowLookup:
            if len(self.asked) == 1:
                await table.write([row("a", text="new")], [], table.version)
            return await super().get(ids, parts)

    cached = CachedTable(Late(table), RowCache(10**6))  # type: ignore[arg-type]
    await texts(cached, ["a"])
    assert await texts(cached, ["a", "b"]) == {"a": "new", "b": "two"}


async def test_readers_next_to_writers_never_see_an_older_row(cached: CachedTable) -> None:
    async def read() -> None:
        last = 0
        while last < 200:
            found = await cached.get(["n", "a"], KEPT)
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
    assert (await cached.get(["a"], NOTHING)).rows["a"].text is None
    assert (await cached.get(["a"], frozenset({Part.TEXT}))).rows["a"].text == "one"


async def test_vectors_are_not_kept(cached: CachedTable, watched: Watched) -> None:
    for _ in range(2):
        await cached.get(["a"], EVERYTHING)
    assert watched.asked == [{"a"}, {"a"}]


async def test_the_row_asked_for_longest_ago_goes_first(watched: Watched) -> None:
    cached = CachedTable(watched, RowCache(ROW_BYTES + 100))  # type: ignore[arg-type]
    for row_id in ("a", "b", "b", "a"):
        await texts(cached, [row_id])
    assert watched.asked == [{"a"}, {"b"}, {"a"}]


class TestCatalogue:
    @pytest.fixture
    async def inner(self) -> MemoryCatalogue:
        return MemoryCatalogue()

    @pytest.fixture
    async def recent(self) -> RowCache:
        return RowCache(ROW_BYTES * 100)

    @pytest.fixture
    async def catalogue(self, inner: MemoryCatalogue, recent: RowCache) -> AsyncIterator[CachedCatalog]:
        cached = CachedCatalog(inner, recent)
        async with cached.loading():
            yield cached

    async def test_a_table_opened_is_read_into_memory(
        self, inner: MemoryCatalogue, catalogue: CachedCatalog, recent: RowCache
    ) -> None:
        table = await inner.create(PHOTOS)
        await table.write([row(f"i{number}") for number in range(50)], [], table.version)
        assert await catalogue.open(PHOTOS.name) is await catalogue.open(PHOTOS.name)
        await asyncio.gather(*catalogue._loading)
        assert len(recent.recall(PHOTOS.uid, [f"i{number}" for number in range(50)])) == 50

    async def test_no_more_than_there_is_room_for(self, inner: MemoryCatalogue, catalogue: CachedCatalog) -> None:
        table = await inner.create(PHOTOS)
        await table.write([row(f"i{number}") for number in range(5000)], [], table.version)
        opened = await catalogue.open(PHOTOS.name)
        await asyncio.gather(*catalogue._loading)
        assert len((await opened.get([f"i{number}" for number in range(200)], KEPT)).rows) == 200

    async def test_nothing_is_told_of_a_collection_dropped(self, catalogue: CachedCatalog, recent: RowCache) -> None:
        table = await catalogue.create(PHOTOS)
        await table.write([row("a")], [], table.version)
        await catalogue.drop(PHOTOS.name)
        assert recent.recall(PHOTOS.uid, ["a"]) == {}
        with pytest.raises(CollectionNotFoundError):
            await table.get(["a"], KEPT)


class Halting(Watched):
    """A table whose answers are on their way until they are let go: rows looked up, and what has changed."""

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self.found, self.told = asyncio.Event(), asyncio.Event()

    async def get(self, ids: Collection[str], parts: Parts) -> RowLookup:
        found = await super().get(ids, parts)
        await self.found.wait()
        return found

    async def changes(self, after: int) -> Changes:
        changes = await super().changes(after)
        return replace(changes, batches=self._told(changes.batches))

    async def write(self, *arguments: object) -> int:
        version = await super().write(*arguments)
        await self.found.wait()
        return version

    async def _told(self, batches: AsyncIterator[ChangedRows]) -> AsyncIterator[ChangedRows]:
        async for batch in batches:
            yield batch
            await self.told.wait()


@pytest.fixture
def halting(table: Table) -> Halting:
    return Halting(table)


async def caught_up_while(halting: Halting, cached: CachedTable, late: Coroutine[Any, Any, object]) -> None:
    """Let another process change "b" while `late` is on its way; it arrives while the cache learns what changed."""
    arriving = asyncio.create_task(late)
    await asyncio.sleep(0)
    await halting.inner.write([row("b", text="newest")], [], halting.inner.version)
    catching_up = asyncio.create_task(cached.get(["a"], KEPT))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    halting.found.set()
    await arriving
    halting.told.set()
    await catching_up


@pytest.mark.parametrize("late", ["read", "write"])
async def test_what_arrives_while_the_cache_catches_up_is_not_taken_for_the_newest(halting: Halting, late: str) -> None:
    cached = CachedTable(halting, RowCache(10**6))  # type: ignore[arg-type]  # as much of a table as is used
    halting.found.set()
    await cached.get(["a"], KEPT)
    halting.found.clear()
    written = cached.write([row("b", text="newer")], [], halting.version)
    read = cached.get(["b"], KEPT)
    unused, arriving = (written, read) if late == "read" else (read, written)
    unused.close()
    await caught_up_while(halting, cached, arriving)
    assert (await cached.get(["b"], KEPT)).rows["b"].text == "newest"


async def test_a_cache_that_could_not_catch_up_knows_what_it_knew(watched: Watched, cached: CachedTable) -> None:
    await cached.get(["a", "b"], KEPT)
    await watched.inner.write([row("b", text="newest")], [], watched.version)
    asked = list(watched.asked)

    async def away(after: int) -> Changes:
        raise ServiceUnavailableError("the store", "is away")

    ours, watched.changes = watched.changes, away  # type: ignore[method-assign]  # for once
    with pytest.raises(ServiceUnavailableError):
        await cached.get(["a"], KEPT)
    watched.changes = ours  # type: ignore[method-assign]  # again
    assert (await cached.get(["a", "b"], KEPT)).rows["b"].text == "newest"
    assert watched.asked == [*asked, {"b"}]


async def test_reading_into_memory_late_takes_no_older_row_for_the_newest(table: Table) -> None:
    cached = CachedTable(table, RowCache(10**6))
    await cached.get(["a", "b"], KEPT)
    await table.write([], ["a"], table.version)
    await cached.load()
    assert set((await cached.get(["a", "b"], KEPT)).rows) == {"b"}
