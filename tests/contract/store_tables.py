"""What each `TableCatalog` and `Table` of the store does. Subclass, give the `catalogue` fixture, inherit the tests."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from services.common.content import ContentType
from services.common.errors import CollectionNotFoundError, SpaceNotFoundError, VersionExpiredError
from services.common.index_config import Exact, Hnsw, IndexConfig, Ivf, ProductQuantization, VectorStorage
from services.common.vectors import Matrix, Metric
from services.store.core.errors import CollectionExistsError
from services.store.core.rows import EVERYTHING, NOTHING, CollectionSchema, Media, Part, Row, Space
from services.store.core.table import ChangedRows, Changes, Snapshot, Table, TableCatalog, WriteConflictError
from tests.waiting import HANG_SECONDS

CREATED = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
SPACES = (
    Space("clip", 3, Metric.COSINE, "medley-mini", (ContentType.IMAGE, ContentType.TEXT), "fingerprint-1"),
    Space("own", 2, Metric.EUCLIDEAN),
)
SHA = "ab" * 32
ODD_IDS = ["a'b", "back\\slash", "new\nline", "ü—漢", "%_", '"q"', "x'; --", "\U0001f600", " "]
HNSW = IndexConfig(Hnsw(m=48, storage=VectorStorage.FLOAT16), exact_below_selectivity=0.25, recall_floor=0.95)
IVF = IndexConfig(Ivf(nlist=7, coding=ProductQuantization(2)))
LATER = datetime.now(UTC) + timedelta(days=1)
EARLIER = datetime.now(UTC) - timedelta(days=1)


def definition(name: str = "collections/photos", uid: str = "u1") -> CollectionSchema:
    return CollectionSchema(name, uid, SPACES, CREATED)


def row(row_id: str, *, revision: int = 1, **fields: object) -> Row:
    return Row(row_id, ContentType.TEXT, **{"text": "hello", "revision": revision, "created": CREATED, **fields})  # type: ignore[arg-type]  # test brevity


def vectors(**components: Sequence[float]) -> Mapping[str, Matrix]:
    return {name: np.array(values, np.float32) for name, values in components.items()}


def full_row() -> Row:
    return Row(
        "full",
        ContentType.IMAGE,
        "a text",
        Media(SHA, "image/png", 123, 4, 5),
        '{"b": 1, "a": null}',
        vectors(clip=[1, 2, 3]),
        ("clip",),
        7,
        CREATED,
        CREATED + timedelta(microseconds=1),
    )


async def changed(changes: Changes) -> tuple[set[str], set[str]]:
    """Return the ids written and removed, each told once."""
    written: list[str] = []
    removed: list[str] = []
    async for rows in changes.batches:
        written.extend(rows.ids)
        removed.extend(rows.deleted_ids)
    assert len({*written, *removed}) == len(written) + len(removed)
    return set(written), set(removed)


def indexes(snapshot: Snapshot) -> Mapping[str, IndexConfig]:
    return {space.name: space.index for space in snapshot.definition.spaces}


async def batches(changes: Changes) -> list[ChangedRows]:
    return [rows async for rows in changes.batches]


class CatalogueContract:
    @pytest.fixture
    async def catalogue(self) -> TableCatalog:
        raise NotImplementedError

    async def test_created_tables_are_there(self, catalogue: TableCatalog) -> None:
        table = await catalogue.create(definition("collections/b"))
        await catalogue.create(definition("collections/a", "u2"))
        assert await catalogue.names() == ["collections/a", "collections/b"]
        assert await catalogue.open("collections/b") is table
        assert table.definition == definition("collections/b")
        assert await table.count() == 0

    async def test_a_name_is_taken_once(self, catalogue: TableCatalog) -> None:
        await catalogue.create(definition())
        with pytest.raises(CollectionExistsError):
            await catalogue.create(definition(uid="u2"))
        assert (await catalogue.open("collections/photos")).definition.uid == "u1"

    async def test_of_many_that_create_one_does(self, catalogue: TableCatalog) -> None:
        outcomes = await asyncio.gather(
            *(catalogue.create(definition(uid=f"u{i}")) for i in range(4)), return_exceptions=True
        )
        assert sorted(isinstance(outcome, CollectionExistsError) for outcome in outcomes) == [False, True, True, True]

    async def test_what_is_not_there_is_not_found(self, catalogue: TableCatalog) -> None:
        with pytest.raises(CollectionNotFoundError):
            await catalogue.open("collections/none")
        with pytest.raises(CollectionNotFoundError):
            await catalogue.drop("collections/none")

    async def test_a_dropped_table_is_gone_for_all_who_hold_it(self, catalogue: TableCatalog) -> None:
        table = await catalogue.create(definition())
        await table.write([row("x")], [], table.version)
        waiting = asyncio.create_task(table.newer_than(table.version))
        await asyncio.sleep(0)
        await catalogue.drop("collections/photos")
        assert await catalogue.names() == []
        for gone in (table.get(["x"], NOTHING), table.count(), table.write([row("y")], [], 1), waiting):
            with pytest.raises(CollectionNotFoundError):
                await gone
        with pytest.raises(CollectionNotFoundError):
            await catalogue.open("collections/photos")

    async def test_a_name_may_come_again(self, catalogue: TableCatalog) -> None:
        old = await catalogue.create(definition())
        await old.write([row("x")], [], old.version)
        await catalogue.drop("collections/photos")
        new = await catalogue.create(definition(uid="u2"))
        assert new.definition.uid == "u2"
        assert await new.count() == 0
        with pytest.raises(CollectionNotFoundError):
            await old.count()


class TableContract:
    @pytest.fixture
    async def catalogue(self) -> TableCatalog:
        raise NotImplementedError

    @pytest.fixture
    async def table(self, catalogue: TableCatalog) -> Table:
        return await catalogue.create(definition())

    async def test_what_is_written_is_read(self, table: Table) -> None:
        version = await table.write([full_row()], [], table.version)
        found = await table.get(["full", "none"], EVERYTHING)
        assert found.version == version == table.version
        assert list(found.rows) == ["full"]
        read, wrote = found.rows["full"], full_row()
        for name in ("id", "content", "text", "media", "metadata_json", "spaces", "revision", "created", "updated"):
            assert getattr(read, name) == getattr(wrote, name), name
        assert {name: vector.tolist() for name, vector in read.vectors.items()} == {"clip": [1, 2, 3]}

    @pytest.mark.parametrize("part", Part)
    async def test_parts_left_out_are_at_their_defaults(self, table: Table, part: Part) -> None:
        await table.write([full_row()], [], table.version)
        read = (await table.get(["full"], frozenset({part}))).rows["full"]
        assert (read.text is not None) is (part is Part.TEXT)
        assert (read.media is not None) is (part is Part.MEDIA)
        assert (read.metadata_json != "{}") is (part is Part.METADATA)
        assert bool(read.vectors) is (part is Part.VECTORS)
        assert (read.spaces, read.revision, read.content) == (("clip",), 7, ContentType.IMAGE)

    async def test_any_id_is_found(self, table: Table) -> None:
        await table.write([row(row_id) for row_id in ODD_IDS], [], table.version)
        assert set((await table.get(ODD_IDS, NOTHING)).rows) == set(ODD_IDS)
        assert [each.id for each in await table.page(None, 100, NOTHING)] == sorted(ODD_IDS)
        for after in ODD_IDS:
            assert [each.id for each in await table.page(after, 100, NOTHING)] == sorted(
                row_id for row_id in ODD_IDS if row_id > after
            )

    async def test_a_write_replaces_the_whole_row(self, table: Table) -> None:
        await table.write([full_row()], [], table.version)
        await table.write([row("full", text=None, vectors=vectors(own=[1, 2]), spaces=("own",))], [], table.version)
        (read,) = (await table.get(["full"], EVERYTHING)).rows.values()
        assert (read.text, read.media, read.spaces, read.revision) == (None, None, ("own",), 1)
        assert await table.count() == 1

    async def test_get_nothing(self, table: Table) -> None:
        assert (await table.get([], EVERYTHING)).rows == {}

    async def test_pages_follow_by_id(self, table: Table) -> None:
        await table.write([row(f"{i}") for i in (3, 1, 2, 5, 4)], [], table.version)
        assert [each.id for each in await table.page(None, 2, NOTHING)] == ["1", "2"]
        assert [each.id for each in await table.page("2", 2, NOTHING)] == ["3", "4"]
        assert [each.id for each in await table.page("4", 2, NOTHING)] == ["5"]
        assert await table.page("5", 2, NOTHING) == []

    async def test_scan_yields_each_row_once(self, table: Table) -> None:
        await table.write([row(f"{i}", metadata_json=f'{{"i": {i}}}') for i in range(5000)], [], table.version)
        rows = [each async for lot in table.scan(frozenset({Part.METADATA})) for each in lot]
        assert {each.id: each.metadata_json for each in rows} == {f"{i}": f'{{"i": {i}}}' for i in range(5000)}
        assert len(rows) == 5000

    async def test_removed_rows_are_gone(self, table: Table) -> None:
        await table.write([row("x"), row("y")], [], table.version)
        await table.write([], ["x"], table.version)
        assert list((await table.get(["x", "y"], NOTHING)).rows) == ["y"]
        assert [each.id for each in await table.page(None, 9, NOTHING)] == ["y"]
        assert [each.id async for lot in table.scan(NOTHING) for each in lot] == ["y"]
        assert await table.count() == 1

    async def test_a_conflicting_write_changes_nothing(self, table: Table) -> None:
        await table.write([row("x")], [], table.version)
        base = table.version
        await table.write([row("x", revision=2)], [], base)
        for rows, deletions in (([row("x", revision=9), row("z")], []), ([], ["x"])):
            with pytest.raises(WriteConflictError):
                await table.write(rows, deletions, base)
        assert (await table.get(["x", "z"], NOTHING)).rows["x"].revision == 2
        assert await table.count() == 1

    async def test_two_who_add_the_same_new_row_conflict(self, table: Table) -> None:
        base = table.version
        await table.write([row("x")], [], base)
        with pytest.raises(WriteConflictError):
            await table.write([row("x")], [], base)

    async def test_writes_of_other_rows_do_not_conflict(self, table: Table) -> None:
        await table.write([row("x"), row("y")], [], table.version)
        base = table.version
        await table.write([row("x", revision=2)], [], base)
        await table.write([row("y", revision=2), row("new")], [], base)
        found = (await table.get(["x", "y", "new"], NOTHING)).rows
        assert {each.id: each.revision for each in found.values()} == {"x": 2, "y": 2, "new": 1}

    async def test_a_new_table_has_no_changes_but_a_version(self, table: Table) -> None:
        changes = await table.changes(0)
        assert changes.complete
        assert changes.version == table.version
        assert await changed(changes) == (set(), set())

    async def test_changes_are_what_was_written_and_removed_since(self, table: Table) -> None:
        await table.write([row("a"), row("b"), row("c")], [], table.version)
        since = table.version
        await table.write([row("b", revision=2), row("d")], ["c"], since)
        assert await changed(await table.changes(since)) == ({"b", "d"}, {"c"})
        assert await changed(await table.changes(table.version)) == (set(), set())
        assert await changed(await table.changes(0)) == ({"a", "b", "d"}, set())

    async def test_a_row_removed_and_added_again_is_written(self, table: Table) -> None:
        await table.write([row("a")], [], table.version)
        since = table.version
        await table.write([], ["a"], table.version)
        await table.write([row("a")], [], table.version)
        assert await changed(await table.changes(since)) == ({"a"}, set())

    async def test_a_row_added_and_removed_again_is_removed(self, table: Table) -> None:
        since = table.version
        await table.write([row("a")], [], table.version)
        await table.write([], ["a"], table.version)
        assert await changed(await table.changes(since)) == (set(), {"a"})

    async def test_changes_carry_metadata_and_vectors(self, table: Table) -> None:
        since = table.version
        await table.write([full_row(), row("bare")], [], since)
        (rows,) = await batches(await table.changes(since))
        by_id = dict(zip(rows.ids, range(2), strict=True))
        assert rows.metadata_json[by_id["full"]] == '{"b": 1, "a": null}'
        assert rows.vectors["clip"].present.tolist() == [i == by_id["full"] for i in range(2)]
        assert rows.vectors["clip"].values[by_id["full"]].tolist() == [1, 2, 3]
        assert rows.vectors["clip"].values[by_id["bare"]].tolist() == [0, 0, 0]
        assert not rows.vectors["own"].present.any()

    async def test_large_changes_come_in_batches(self, table: Table) -> None:
        await table.write([row(f"{i}") for i in range(5000)], [], table.version)
        assert max(len(rows.ids) for rows in await batches(await table.changes(0))) <= 2000

    async def test_tidying_changes_no_row_and_no_cursor(self, table: Table) -> None:
        for i in range(12):
            await table.write([row(f"{i}")], [], table.version)
        since = table.version
        await table.write([row("3", revision=2)], ["4"], since)
        before = table.version
        await table.tidy(EARLIER, LATER)
        changes = await table.changes(since)
        assert changes.complete
        assert changes.version >= before
        assert await changed(changes) == ({"3"}, {"4"})
        assert await table.count() == 11
        assert set((await table.get([f"{i}" for i in range(12)], NOTHING)).rows) == {f"{i}" for i in range(12)} - {"4"}

    async def test_tidying_twice_is_tidying_once(self, table: Table) -> None:
        for i in range(12):
            await table.write([row(f"{i}")], [], table.version)
        await table.tidy(EARLIER, EARLIER)
        version = table.version
        await table.tidy(EARLIER, EARLIER)
        assert table.version == version

    async def test_forgotten_deletions_make_old_cursors_incomplete(self, table: Table) -> None:
        await table.write([row("a"), row("b")], [], table.version)
        old = table.version
        await table.write([], ["a"], old)
        await table.write([row("c")], [], table.version)
        new = table.version
        await table.tidy(LATER, EARLIER)
        forgotten = await table.changes(old)
        assert not forgotten.complete
        assert await changed(forgotten) == ({"b", "c"}, set())
        known = await table.changes(new)
        assert known.complete
        assert await changed(known) == (set(), set())
        assert (await table.changes(0)).complete

    async def test_a_cursor_from_the_future_is_incomplete(self, table: Table) -> None:
        assert not (await table.changes(table.version + 5)).complete

    async def test_a_commit_wakes_who_waits(self, table: Table) -> None:
        waiting = asyncio.create_task(table.newer_than(table.version))
        await asyncio.sleep(0)
        version = await table.write([row("a")], [], table.version)
        assert await asyncio.wait_for(waiting, HANG_SECONDS) == version
        assert await table.newer_than(version - 1) == version

    async def test_an_old_commit_reads_as_it_was(self, table: Table) -> None:
        await table.write([full_row(), row("b"), row("c")], [], table.version)
        old = table.version
        await table.write([row("full", text="new", revision=8), row("d")], ["b"], old)
        await table.write([row("b", revision=2)], [], table.version)
        snapshot = await table.as_of(old)
        assert (snapshot.version, snapshot.definition) == (old, table.definition)
        found = await snapshot.get(["full", "b", "d"], EVERYTHING)
        assert found.version == old
        assert {each.id: (each.text, each.revision) for each in found.rows.values()} == {
            "full": ("a text", 7),
            "b": ("hello", 1),
        }
        assert found.rows["full"].vectors["clip"].tolist() == [1, 2, 3]
        assert [each.id for each in await snapshot.page("b", 9, NOTHING)] == ["c", "full"]
        assert {each.id async for lot in snapshot.scan(NOTHING) for each in lot} == {"full", "b", "c"}
        assert (await snapshot.count(), await table.count()) == (3, 4)
        assert await (await table.as_of(table.version)).count() == 4
        assert await (await table.as_of(1)).count() == 0

    async def test_a_space_is_indexed_as_it_was_created_until_it_is_configured(self, catalogue: TableCatalog) -> None:
        chosen = definition().indexed({"own": IVF})
        table = await catalogue.create(chosen)
        assert indexes(table) == {"clip": IndexConfig(), "own": IVF}
        created = table.version
        version = await table.configure("clip", HNSW)
        assert version == table.version > created
        assert table.definition == chosen.indexed({"clip": HNSW})
        assert (await table.changes(created)).definition == table.definition
        assert await changed(await table.changes(created)) == (set(), set())

    async def test_configuring_again_what_is_so_makes_no_commit(self, table: Table) -> None:
        version = await table.configure("own", IVF)
        assert await table.configure("own", IVF) == version == table.version
        assert await table.configure("own", IndexConfig()) > version
        assert indexes(table) == {"clip": IndexConfig(), "own": IndexConfig()}

    async def test_only_a_space_there_is_can_be_configured(self, table: Table) -> None:
        with pytest.raises(SpaceNotFoundError):
            await table.configure("none", HNSW)
        assert table.definition == definition()

    async def test_a_new_index_wakes_who_waits(self, table: Table) -> None:
        waiting = asyncio.create_task(table.newer_than(table.version))
        await asyncio.sleep(0)
        assert await table.configure("clip", HNSW) == await asyncio.wait_for(waiting, HANG_SECONDS)

    async def test_writers_and_those_who_configure_lose_nothing_to_each_other(self, table: Table) -> None:
        based_on = table.version
        await asyncio.gather(
            table.configure("clip", HNSW),
            *(table.write([row(f"r{i}")], [], based_on) for i in range(3)),
            table.configure("own", IVF),
        )
        assert indexes(table) == {"clip": HNSW, "own": IVF}
        assert await table.count() == 3

    async def test_a_configuration_outlives_tidying_and_purging(self, table: Table) -> None:
        await table.write([row("a"), row("b")], [], table.version)
        await table.configure("clip", HNSW)
        await table.write([row("b", revision=2)], ["a"], table.version)
        await table.tidy(LATER, LATER)
        assert indexes(table) == {"clip": HNSW, "own": IndexConfig()}
        await table.purge()
        assert indexes(table) == {"clip": HNSW, "own": IndexConfig()}
        assert (await table.changes(0)).definition == table.definition

    async def test_an_old_commit_has_the_configuration_it_had(self, table: Table) -> None:
        created = table.version
        first = await table.configure("clip", HNSW)
        await table.tag("hnsw", first)
        await table.configure("clip", IndexConfig(Exact(VectorStorage.FLOAT32)))
        assert indexes(await table.as_of(created))["clip"] == IndexConfig()
        await table.tidy(LATER, LATER)
        assert indexes(await table.as_of(first))["clip"] == HNSW

    async def test_a_tidied_commit_is_expired_unless_it_is_tagged(self, table: Table) -> None:
        await table.write([row("a")], [], table.version)
        tagged = table.version
        await table.tag("first", tagged)
        await table.write([row("a", revision=2)], [], table.version)
        untagged = table.version
        await table.write([row("a", revision=3)], [], table.version)
        await table.write([], ["a"], table.version)
        for _ in range(2):
            await table.tidy(LATER, LATER)
        assert (await (await table.as_of(tagged)).get(["a"], NOTHING)).rows["a"].revision == 1
        with pytest.raises(VersionExpiredError):
            await (await table.as_of(untagged)).get(["a"], NOTHING)
        with pytest.raises(VersionExpiredError):
            await table.tag("late", untagged)
        assert await table.tags() == {"first": tagged}
        assert await table.untag("first")
        await table.tidy(LATER, LATER)
        with pytest.raises(VersionExpiredError):
            await (await table.as_of(tagged)).get(["a"], NOTHING)
        assert await table.count() == 0

    async def test_a_tag_keeps_its_commit(self, table: Table) -> None:
        await table.write([row("a")], [], table.version)
        old = table.version
        await table.tag("t", old)
        await table.write([row("b")], [], table.version)
        await table.tag("t", table.version)
        assert await table.tags() == {"t": old}
        assert not await table.untag("none")
        assert await table.untag("t")
        assert await table.tags() == {}
        await table.tag("t", table.version)
        assert await table.tags() == {"t": table.version}

    async def test_tags_come_and_go_while_others_read(self, table: Table) -> None:
        version = await table.write([row("a")], [], table.version)
        names = [f"t{number}" for number in range(8)]

        async def read() -> set[int]:
            return {await table.count() for _ in range(8)}

        counted = await asyncio.gather(*(read() for _ in range(4)), *(table.tag(name, version) for name in names))
        assert counted[:4] == [{1}] * 4
        assert await table.tags() == dict.fromkeys(names, version)
        await asyncio.gather(*(read() for _ in range(4)), *(table.untag(name) for name in names))
        assert await table.tags() == {}

    async def test_a_purge_forgets_all_that_is_past(self, table: Table) -> None:
        await table.write([full_row(), row("kept"), row("gone")], [], table.version)
        tagged = table.version
        await table.tag("t", tagged)
        await table.write([row("kept", revision=2)], [], table.version)
        untagged = table.version
        await table.write([], ["gone"], table.version)
        newest = table.version
        await table.purge()
        with pytest.raises(VersionExpiredError):
            await (await table.as_of(untagged)).get(["kept"], EVERYTHING)
        assert (await (await table.as_of(tagged)).get(["gone"], EVERYTHING)).rows["gone"].text == "hello"
        found = (await table.get(["full", "kept", "gone"], EVERYTHING)).rows
        assert {each.id: each.revision for each in found.values()} == {"full": 7, "kept": 2}
        assert [each.id for each in await table.page(None, 9, NOTHING)] == ["full", "kept"]
        assert not (await table.changes(untagged)).complete
        current = await table.changes(newest)
        assert (current.complete, await changed(current)) == (True, (set(), set()))
        await table.write([row("gone")], [], table.version)
        assert await changed(await table.changes(newest)) == ({"gone"}, set())

    async def test_a_scan_under_way_ends_whole_or_says_that_its_version_is_gone(self, table: Table) -> None:
        await table.write([row(f"{i:05}") for i in range(6000)], [], table.version)
        scan = aiter(table.scan(EVERYTHING))
        seen = len(await anext(scan))
        await table.write([row(f"{i:05}", revision=2) for i in range(6000)], [], table.version)
        await table.purge()
        try:
            async for rows in scan:
                seen += len(rows)
        except VersionExpiredError:
            assert seen < 6000
        else:
            assert seen == 6000
