import asyncio
from collections.abc import Sequence

import pytest

from services.common.concurrency.retry import Backoff
from services.common.errors import OverloadedError, RevisionError, ServiceError, SpaceNotFoundError
from services.common.index_config import Hnsw, IndexConfig
from services.store.adapters.memory_tables import MemoryTable
from services.store.core import committer as committer_module
from services.store.core.committer import CommitResult, Committer
from services.store.core.mutations import Delete, Update, Upsert, WrittenRow
from services.store.core.rows import ALL_FIELDS, NO_FIELDS, Row
from services.store.core.table import WriteConflictError
from services.store.core.validation import ValidatedRow
from tests.unit.store.rows import NOW, PHOTOS, row


class ConflictingTable(MemoryTable):
    """A table where, before each of the first `wins` commits, another process commits row "x"."""

    def __init__(self, wins: int) -> None:
        super().__init__(PHOTOS)
        self.wins = wins

    async def write(self, rows: Sequence[Row], deletions: Sequence[str], base_version: int) -> int:
        if self.wins:
            self.wins -= 1
            await super().write([row("x", revision=100)], [], self.version)
        return await super().write(rows, deletions, base_version)

    async def configure(self, space: str, index: IndexConfig) -> int:
        if self.wins:
            self.wins -= 1
            raise WriteConflictError
        return await super().configure(space, index)


def committer(table: MemoryTable, max_rows: int = 100) -> Committer:
    return Committer(table, max_rows=max_rows, clock=lambda: NOW)


def upsert(*ids: str, expected_revision: int | None = None) -> Upsert:
    return Upsert([ValidatedRow(row(row_id), expected_revision) for row_id in ids])


async def test_writes_that_come_together_share_a_commit() -> None:
    table = MemoryTable(PHOTOS)
    work = committer(table)
    first = table.version
    outcomes = await asyncio.gather(*(work.commit(upsert(f"{i}")) for i in range(10)))
    assert {outcome.version for outcome in outcomes} == {table.version} == {first + 1}
    assert await table.count() == 10


async def test_in_a_shared_commit_each_sees_the_one_before() -> None:
    table = MemoryTable(PHOTOS)
    work = committer(table)
    outcomes = await asyncio.gather(
        work.commit(upsert("x", expected_revision=0)),
        work.commit(upsert("x", expected_revision=1)),
        work.commit(Update(PHOTOS, "x", text="new", expected_revision=2)),
        work.commit(Delete(["x"])),
        work.commit(upsert("x", expected_revision=0)),
    )
    assert [outcomes[0].result, outcomes[1].result] == [[WrittenRow("x", 1)], [WrittenRow("x", 2)]]
    assert (outcomes[3].result, outcomes[4].result) == (1, [WrittenRow("x", 1)])
    assert (await table.get(["x"], ALL_FIELDS)).rows["x"].text == "a text"


async def test_a_refused_write_refuses_no_other() -> None:
    table = MemoryTable(PHOTOS)
    work = committer(table)
    outcomes = await asyncio.gather(
        work.commit(upsert("x")),
        work.commit(Update(PHOTOS, "x", text="new", expected_revision=9)),
        work.commit(upsert("y")),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], RevisionError)
    assert set((await table.get(["x", "y"], NO_FIELDS)).rows) == {"x", "y"}


async def test_adding_and_removing_in_one_commit_leaves_nothing() -> None:
    table = MemoryTable(PHOTOS)
    work = committer(table)
    await asyncio.gather(work.commit(upsert("x")), work.commit(Delete(["x"])))
    assert await table.count() == 0


async def test_what_changes_nothing_commits_nothing() -> None:
    table = MemoryTable(PHOTOS)
    before = table.version
    assert await committer(table).commit(Delete(["none"])) == CommitResult(0, before)
    assert table.version == before


async def test_a_conflict_applies_the_mutation_again() -> None:
    table = ConflictingTable(wins=2)
    outcome = await committer(table).commit(upsert("x"))
    assert outcome.result == [WrittenRow("x", 101)]


async def test_a_conflicting_commit_is_seen_by_a_condition() -> None:
    table = ConflictingTable(wins=1)
    outcome = await committer(table).commit(upsert("x", expected_revision=0))
    (refused,) = outcome.result
    assert isinstance(refused, RevisionError)


async def test_endless_conflicts_are_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "BACKOFF", Backoff(0, 0))
    with pytest.raises(OverloadedError):
        await committer(ConflictingTable(wins=1000)).commit(upsert("x"))


async def test_too_much_waiting_is_refused_at_once() -> None:
    work = committer(MemoryTable(PHOTOS), max_rows=3)
    first = asyncio.create_task(work.commit(upsert("a", "b")))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(work.commit(upsert(f"{i}"))) for i in range(5)]
    outcomes = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert any(isinstance(outcome, OverloadedError) for outcome in outcomes)
    assert all(isinstance(outcome, CommitResult | OverloadedError) for outcome in outcomes)


async def test_a_batch_larger_than_the_queue_is_taken_when_nothing_waits() -> None:
    outcome = await committer(MemoryTable(PHOTOS), max_rows=1).commit(upsert("a", "b", "c"))
    assert len(outcome.result) == 3


async def test_a_caller_that_leaves_takes_nothing_back() -> None:
    table = MemoryTable(PHOTOS)
    work = committer(table)
    leaver = asyncio.create_task(work.commit(upsert("a")))
    await asyncio.sleep(0)
    leaver.cancel()
    await work.drain()
    assert await table.count() == 1
    with pytest.raises(asyncio.CancelledError):
        await leaver


async def test_what_breaks_one_commit_leaves_the_next_alone() -> None:
    class Broken(MemoryTable):
        broken = True

        async def write(self, rows: Sequence[Row], deletions: Sequence[str], base_version: int) -> int:
            if self.broken:
                raise ZeroDivisionError
            return await super().write(rows, deletions, base_version)

    table = Broken(PHOTOS)
    work = committer(table)
    with pytest.raises(ZeroDivisionError):
        await work.commit(upsert("a"))
    table.broken = False
    assert isinstance((await work.commit(upsert("a"))).result[0], WrittenRow)


def test_a_conflict_is_no_service_error() -> None:
    assert not issubclass(WriteConflictError, ServiceError), "it never leaves the store"


async def test_a_new_index_is_tried_again_when_another_process_came_first() -> None:
    table = ConflictingTable(wins=3)
    assert await committer(table).configure("clip", IndexConfig(Hnsw())) == table.version
    assert [space.index.kind for space in table.schema.spaces if space.name == "clip"] == [Hnsw()]


async def test_a_new_index_is_refused_where_others_always_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "BACKOFF", Backoff(0, 0))
    table = ConflictingTable(wins=1000)
    with pytest.raises(OverloadedError):
        await committer(table).configure("clip", IndexConfig(Hnsw()))
    assert table.schema == PHOTOS


async def test_an_index_of_no_space_is_refused() -> None:
    with pytest.raises(SpaceNotFoundError):
        await committer(MemoryTable(PHOTOS)).configure("none", IndexConfig(Hnsw()))


async def test_who_goes_away_does_not_take_a_new_index_back() -> None:
    table = MemoryTable(PHOTOS)
    work = committer(table)
    asking = asyncio.create_task(work.configure("clip", IndexConfig(Hnsw())))
    await asyncio.sleep(0)
    asking.cancel()
    await work.drain()
    assert table.schema == PHOTOS.with_indexes({"clip": IndexConfig(Hnsw())})
