"""Rows read lately are told as of the commit asked, and take no more memory than allowed."""

from collections.abc import Collection

import pytest

from services.store.adapters.memory_tables import MemoryCatalogue
from services.store.recent_rows import KEPT, ROW_BYTES, RecentRows
from services.store.rows import EVERYTHING, NOTHING, Part, Parts
from services.store.tables import Found, Table
from tests.unit.store.rows import PHOTOS, row


class Watched:
    """A table that notes which ids it is asked for."""

    def __init__(self, table: Table) -> None:
        self.definition = table.definition
        self.asked: list[set[str]] = []
        self._table = table

    @property
    def version(self) -> int:
        return self._table.version

    async def get(self, ids: Collection[str], parts: Parts) -> Found:
        self.asked.append(set(ids))
        return await self._table.get(ids, parts)


@pytest.fixture
async def table() -> Table:
    table = await MemoryCatalogue().create(PHOTOS)
    await table.write([row("a", text="one"), row("b", text="two")], [], table.version)
    return table


async def texts(recent: RecentRows, table: object, ids: list[str]) -> dict[str, str | None]:
    found = await recent.get(table, ids, KEPT)  # type: ignore[arg-type]  # as much of a table as is used
    return {row_id: each.text for row_id, each in found.items()}


async def test_a_row_is_looked_up_once(table: Table) -> None:
    watched, recent = Watched(table), RecentRows(10**6)
    assert await texts(recent, watched, ["a"]) == {"a": "one"}
    assert await texts(recent, watched, ["a", "b", "c"]) == {"a": "one", "b": "two"}
    assert watched.asked == [{"a"}, {"b", "c"}]


async def test_a_commit_is_seen_at_once(table: Table) -> None:
    recent = RecentRows(10**6)
    await texts(recent, table, ["a", "b"])
    await table.write([row("a", text="new")], ["b"], table.version)
    assert await texts(recent, table, ["a", "b"]) == {"a": "new"}


async def test_an_answer_is_of_one_commit(table: Table) -> None:
    class Late(Watched):
        async def get(self, ids: Collection[str], parts: Parts) -> Found:
            if len(self.asked) == 1:
                await table.write([row("a", text="new")], [], table.version)
            return await super().get(ids, parts)

    late, recent = Late(table), RecentRows(10**6)
    await texts(recent, late, ["a"])
    assert await texts(recent, late, ["a", "b"]) == {"a": "new", "b": "two"}


async def test_what_was_not_asked_for_is_left_out(table: Table) -> None:
    recent = RecentRows(10**6)
    await texts(recent, table, ["a"])
    assert (await recent.get(table, ["a"], NOTHING))["a"].text is None
    assert (await recent.get(table, ["a"], frozenset({Part.TEXT})))["a"].text == "one"


async def test_vectors_are_not_kept(table: Table) -> None:
    watched, recent = Watched(table), RecentRows(10**6)
    for _ in range(2):
        await recent.get(watched, ["a"], EVERYTHING)  # type: ignore[arg-type]
    assert watched.asked == [{"a"}, {"a"}]


async def test_the_row_asked_for_longest_ago_goes_first(table: Table) -> None:
    watched, recent = Watched(table), RecentRows(ROW_BYTES + 100)
    for row_id in ("a", "b", "b", "a"):
        await texts(recent, watched, [row_id])
    assert watched.asked == [{"a"}, {"b"}, {"a"}]
