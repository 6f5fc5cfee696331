"""What each `TableCatalog` and `Table` of the store does. Subclass, give the `catalog` fixture, inherit the tests."""

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
from services.store.core.rows import ALL_FIELDS, NO_FIELDS, CollectionSchema, Media, Row, RowField, Space
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


def schema(name: str = "collections/photos", uid: str = "u1") -> CollectionSchema:
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
    """Return the ids written and removed, each once."""
    written: list[str] = []
    removed: list[str] = []
    async for rows in changes.batches:
        written.extend(rows.ids)
        removed.extend(rows.deleted_ids)
    assert len({*written, *removed}) == len(written) + len(removed)
    return set(written), set(removed)


def indexes(snapshot: Snapshot) -> Mapping[str, IndexConfig]:
    return {space.name: space.index for space in snapshot.schema.spaces}


async def batches(changes: Changes) -> list[ChangedRows]:
    return [rows async for rows in changes.batches]


class CatalogContract:
    @pytest.fixture
    async def catalog(self) -> TableCatalog:
        raise NotImplementedError

    async def test_created_tables_are_there(self, catalog: TableCatalog) -> None:
        table = await catalog.create(schema("collections/b"))
        await catalog.create(schema("collections/a", "u2"))
        assert await catalog.names() == ["collections/a", "collections/b"]
        assert await catalog.open("collections/b") is table
        assert table.schema == schema("collections/b")
        assert await table.count() == 0

    async def test_a_name_is_taken_once(self, catalog: TableCatalog) -> None:
        await catalog.create(schema())
        with pytest.raises(CollectionExistsError):
            await catalog.create(schema(uid="u2"))
        assert (await catalog.open("collections/photos")).schema.uid == "u1"

    async def test_of_many_that_create_one_does(self, catalog: TableCatalog) -> None:
        outcomes = await asyncio.gather(
            *(catalog.create(schema(uid=f"u{i}")) for i in range(4)), return_exceptions=True
        )
        assert sorted(isinstance(outcome, CollectionExistsError) for outcome in outcomes) == [False, True, True, True]

    async def test_what_is_not_there_is_not_found(self, catalog: TableCatalog) -> None:
        with pytest.raises(CollectionNotFoundError):
            await catalog.open("collections/none")
        with pytest.raises(CollectionNotFoundError):
            await catalog.drop("collections/none")

    async def test_a_dropped_table_is_gone_for_all_who_hold_it(self, catalog: TableCatalog) -> None:
        table = await catalog.create(schema())
        await table.write([row("x")], [], table.version)
        waiting = asyncio.create_task(table.wait_for_commit(table.version))
        await asyncio.sleep(0)
        await catalog.drop("collections/photos")
        assert await catalog.names() == []
        for gone in (table.get(["x"], NO_FIELDS), table.count(), table.write([row("y")], [], 1), waiting):
            with pytest.raises(CollectionNotFoundError):
                await gone
        with pytest.raises(CollectionNotFoundError):
            await catalog.open("collections/photos")

    async def test_a_name_may_come_again(self, catalog: TableCatalog) -> None:
        old = await catalog.create(schema())
        await old.write([row("x")], [], old.version)
        await catalog.drop("collections/photos")
        new = await catalog.create(schema(uid="u2"))
        assert new.schema.uid == "u2"
        assert await new.count() == 0
        with pytest.raises(CollectionNotFoundError):
            await old.count()


class TableContract:
    @pytest.fixture
    async def catalog(self) -> TableCatalog:
        raise NotImplementedError

    @pytest.fixture
    async def table(self, catalog: TableCatalog) -> Table:
        return await catalog.create(schema())

    async def test_what_is_written_is_read(self, table: Table) -> None:
        version = await table.write([full_row()], [], table.version)
        found = await table.get(["full", "none"], ALL_FIELDS)
        assert found.version == version == table.version
        assert list(found.rows) == ["full"]
        read, wrote = found.rows["full"], full_row()
        for name in ("id", "content", "text", "media", "metadata_json", "spaces", "revision", "created", "updated"):
            assert getattr(read, name) == getattr(wrote, name), name
        assert {name: vector.tolist() for name, vector in read.vectors.items()} == {"clip": [1, 2, 3]}

    @pytest.mark.parametrize("field", RowField)
    async def test_parts_left_out_are_at_their_defaults(self, table: Table, field: RowField) -> None:
        await table.write([full_row()], [], table.version)
        read = (await table.get(["full"], frozenset({field}))).rows["full"]
        assert (read.text is not None) is (field is RowField.TEXT)
        assert (read.media is not None) is (field is RowField.MEDIA)
        assert (read.metadata_json != "{}") is (field is RowField.METADATA)
        assert bool(read.vectors) is (field is RowField.VECTORS)
        assert (read.spaces, read.revision, read.content) == (("clip",), 7, ContentType.IMAGE)

    async def test_any_id_is_found(self, table: Table) -> None:
        await table.write([row(row_id) for row_id in ODD_IDS], [], table.version)
        assert set((await table.get(ODD_IDS, NO_FIELDS)).rows) == set(ODD_IDS)
        assert [each.id for each in await table.page(None, 100, NO_FIELDS)] == sorted(ODD_IDS)
        for after in ODD_IDS:
            assert [each.id for each in await table.page(after, 100, NO_FIELDS)] == sorted(
                row_id for row_id in ODD_IDS if row_id > after
            )

    async def test_a_write_replaces_the_whole_row(self, table: Table) -> None:
        await table.write([full_row()], [], table.version)
        await table.write([row("full", text=None, vectors=vectors(own=[1, 2]), spaces=("own",))], [], table.version)
        (read,) = (await table.get(["full"], ALL_FIELDS)).rows.values()
        assert (read.text, read.media, read.spaces, read.revision) == (None, None, ("own",), 1)
        assert await table.count() == 1

    async def test_get_nothing(self, table: Table) -> None:
        assert (await table.get([], ALL_FIELDS)).rows == {}

    async def test_pages_follow_by_id(self, table: Table) -> None:
        await table.write([row(f"{i}") for i in (3, 1, 2, 5, 4)], [], table.version)
        assert [each.id for each in await table.page(None, 2, NO_FIELDS)] == ["1", "2"]
        assert [each.id for each in await table.page("2", 2, NO_FIELDS)] == ["3", "4"]
        assert [each.id for each in await table.page("4", 2, NO_FIELDS)] == ["5"]
        assert await table.page("5", 2, NO_FIELDS) == []

    async def test_scan_yields_each_row_once(self, table: Table) -> None:
        await table.write([row(f"{i}", metadata_json=f'{{"i": {i}}}') for i in range(5000)], [], table.version)
        rows = [each async for lot in table.scan(frozenset({RowField.METADATA})) for each in lot]
        assert {each.id: each.metadata_json for each in rows} == {f"{i}": f'{{"i": {i}}}' for i in range(5000)}
        assert len(rows) == 5000

    async def test_removed_rows_are_gone(self, table: Table) -> None:
        await table.write([row("x"), row("y")], [], table.version)
        await table.write([], ["x"], table.version)
        assert list((await table.get(["x", "y"], NO_FIELDS)).rows) == ["y"]
        assert [each.id for each in await table.page(None, 9, NO_FIELDS)] == ["y"]
        assert [each.id async for lot in table.scan(NO_FIELDS) for each in lot] == ["y"]
        assert await table.count() == 1

    async def test_a_conflicting_write_changes_nothing(self, table: Table) -> None:
        await table.write([row("x")], [], table.version)
        base = table.version
        await table.write([row("x", revision=2)], [], base)
        for rows, deletions in (([row("x", revision=9), row("z")], []), ([], ["x"])):
            with pytest.raises(WriteConflictError):
                await table.write(rows, deletions, base)
        assert (await table.get(["x", "z"], NO_FIELDS)).rows["x"].revision == 2
        assert await table.count() == 1

    async def test_two_writers_that_add_the_same_new_row_conflict(self, table: Table) -> None:
        base = table.version
        await table.write([row("x")], [], base)
        with pytest.raises(WriteConflictError):
            await table.write([row("x")], [], base)

    async def test_writes_of_other_rows_do_not_conflict(self, table: Table) -> None:
        await table.write([row("x"), row("y")], [], table.version)
        base = table.version
        await table.write([row("x", revision=2)], [], base)
        await table.write([row("y", revision=2), row("new")], [], base)
        found = (await table.get(["x", "y", "new"], NO_FIELDS)).rows
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

    async def test_optimizing_changes_no_row_and_no_cursor(self, table: Table) -> None:
        for i in range(12):
            await table.write([row(f"{i}")], [], table.version)
        since = table.version
        await table.write([row("3", revision=2)], ["4"], since)
        before = table.version
        await table.optimize(EARLIER, LATER)
        changes = await table.changes(since)
        assert changes.complete
        assert changes.version >= before
        assert await changed(changes) == ({"3"}, {"4"})
        assert await table.count() == 11
        assert set((await table.get([f"{i}" for i in range(12)], NO_FIELDS)).rows) == {f"{i}" for i in range(12)} - {
            "4"
        }

    async def test_optimizing_twice_is_optimizing_once(self, table: Table) -> None:
        for i in range(12):
            await table.write([row(f"{i}")], [], table.version)
        await table.optimize(EARLIER, EARLIER)
        version = table.version
        await table.optimize(EARLIER, EARLIER)
        assert table.version == version

    async def test_expired_deletions_make_old_cursors_incomplete(self, table: Table) -> None:
        await table.write([row("a"), row("b")], [], table.version)
        old = table.version
        await table.write([], ["a"], old)
        await table.write([row("c")], [], table.version)
        new = table.version
        await table.optimize(LATER, EARLIER)
        forgotten = await table.changes(old)
        assert not forgotten.complete
        assert await changed(forgotten) == ({"b", "c"}, set())
        known = await table.changes(new)
        assert known.complete
        assert await changed(known) == (set(), set())
        assert (await table.changes(0)).complete

    async def test_a_cursor_from_the_future_is_incomplete(self, table: Table) -> None:
        assert not (await table.changes(table.version + 5)).complete

    async def test_a_commit_wakes_waiting_callers(self, table: Table) -> None:
        waiting = asyncio.create_task(table.wait_for_commit(table.version))
        await asyncio.sleep(0)
        version = await table.write([row("a")], [], table.version)
        assert await asyncio.wait_for(waiting, HANG_SECONDS) == version
        assert await table.wait_for_commit(version - 1) == version

    async def test_an_old_commit_reads_as_it_was(self, table: Table) -> None:
        await table.write([full_row(), row("b"), row("c")], [], table.version)
        old = table.version
        await table.write([row("full", text="new", revision=8), row("d")], ["b"], old)
        await table.write([row("b", revision=2)], [], table.version)
        snapshot = await table.as_of(old)
        assert (snapshot.version, snapshot.schema) == (old, table.schema)
        found = await snapshot.get(["full", "b", "d"], ALL_FIELDS)
        assert found.version == old
        assert {each.id: (each.text, each.revision) for each in found.rows.values()} == {
            "full": ("a text", 7),
            "b": ("hello", 1),
        }
        assert found.rows["full"].vectors["clip"].tolist() == [1, 2, 3]
        assert [each.id for each in await snapshot.page("b", 9, NO_FIELDS)] == ["c", "full"]
        assert {each.id async for lot in snapshot.scan(NO_FIELDS) for each in lot} == {"full", "b", "c"}
        assert (await snapshot.count(), await table.count()) == (3, 4)
        assert await (await table.as_of(table.version)).count() == 4
        assert await (await table.as_of(1)).count() == 0

    async def test_a_space_is_indexed_as_it_was_created_until_it_is_configured(self, catalog: TableCatalog) -> None:
        chosen = schema().with_indexes({"own": IVF})
        table = await catalog.create(chosen)
        assert indexes(table) == {"clip": IndexConfig(), "own": IVF}
        created = table.version
        version = await table.configure("clip", HNSW)
        assert version == table.version > created
        assert table.schema == chosen.with_indexes({"clip": HNSW})
        assert (await table.changes(created)).schema == table.schema
        assert await changed(await table.changes(created)) == (set(), set())

    async def test_configuring_again_what_is_so_makes_no_commit(self, table: Table) -> None:
        version = await table.configure("own", IVF)
        assert await table.configure("own", IVF) == version == table.version
        assert await table.configure("own", IndexConfig()) > version
        assert indexes(table) == {"clip": IndexConfig(), "own": IndexConfig()}

    async def test_only_a_space_there_is_can_be_configured(self, table: Table) -> None:
        with pytest.raises(SpaceNotFoundError):
            await table.configure("none", HNSW)
        assert table.schema == schema()

    async def test_a_new_index_wakes_waiting_callers(self, table: Table) -> None:
        waiting = asyncio.create_task(table.wait_for_commit(table.version))
        await asyncio.sleep(0)
        assert await table.configure("clip", HNSW) == await asyncio.wait_for(waiting, HANG_SECONDS)

    async def test_concurrent_writes_and_configurations_lose_nothing(self, table: Table) -> None:
        base_version = table.version
        await asyncio.gather(
            table.configure("clip", HNSW),
            *(table.write([row(f"r{i}")], [], base_version) for i in range(3)),
            table.configure("own", IVF),
        )
        assert indexes(table) == {"clip": HNSW, "own": IVF}
        assert await table.count() == 3

    async def test_a_configuration_survives_optimizing_and_purging(self, table: Table) -> None:
        await table.write([row("a"), row("b")], [], table.version)
        await table.configure("clip", HNSW)
        await table.write([row("b", revision=2)], ["a"], table.version)
        await table.optimize(LATER, LATER)
        assert indexes(table) == {"clip": HNSW, "own": IndexConfig()}
        await table.purge()
        assert indexes(table) == {"clip": HNSW, "own": IndexConfig()}
        assert (await table.changes(0)).schema == table.schema

    async def test_an_old_commit_has_the_configuration_it_had(self, table: Table) -> None:
        created = table.version
        first = await table.configure("clip", HNSW)
        await table.create_tag("hnsw", first)
        await table.configure("clip", IndexConfig(Exact(VectorStorage.FLOAT32)))
        assert indexes(await table.as_of(created))["clip"] == IndexConfig()
        await table.optimize(LATER, LATER)
        assert indexes(await table.as_of(first))["clip"] == HNSW

    async def test_an_old_commit_is_expired_unless_it_is_tagged(self, table: Table) -> None:
        await table.write([row("a")], [], table.version)
        tagged = table.version
        await table.create_tag("first", tagged)
        await table.write([row("a", revision=2)], [], table.version)
        untagged = table.version
        await table.write([row("a", revision=3)], [], table.version)
        await table.write([], ["a"], table.version)
        for _ in range(2):
            await table.optimize(LATER, LATER)
        assert (await (await table.as_of(tagged)).get(["a"], NO_FIELDS)).rows["a"].revision == 1
        with pytest.raises(VersionExpiredError):
            await (await table.as_of(untagged)).get(["a"], NO_FIELDS)
        with pytest.raises(VersionExpiredError):
            await table.create_tag("late", untagged)
        assert await table.tags() == {"first": tagged}
        assert await table.delete_tag("first")
        await table.optimize(LATER, LATER)
        with pytest.raises(VersionExpiredError):
            await (await table.as_of(tagged)).get(["a"], NO_FIELDS)
        assert await table.count() == 0

    async def test_a_tag_keeps_its_commit(self, table: Table) -> None:
        await table.write([row("a")], [], table.version)
        old = table.version
        await table.create_tag("t", old)
        await table.write([row("b")], [], table.version)
        await table.create_tag("t", table.version)
        assert await table.tags() == {"t": old}
        assert not await table.delete_tag("none")
        assert await table.delete_tag("t")
        assert await table.tags() == {}
        await table.create_tag("t", table.version)
        assert await table.tags() == {"t": table.version}

    async def test_tags_come_and_go_while_others_read(self, table: Table) -> None:
        version = await table.write([row("a")], [], table.version)
        names = [f"t{number}" for number in range(8)]

        async def read() -> set[int]:
            return {await table.count() for _ in range(8)}

        counted = await asyncio.gather(
            *(read() for _ in range(4)), *(table.create_tag(name, version) for name in names)
        )
        assert counted[:4] == [{1}] * 4
        assert await table.tags() == dict.fromkeys(names, version)
        await asyncio.gather(*(read() for _ in range(4)), *(table.delete_tag(name) for name in names))
        assert await table.tags() == {}

    async def test_a_purge_forgets_all_that_is_past(self, table: Table) -> None:
        await table.write([full_row(), row("kept"), row("gone")], [], table.version)
        tagged = table.version
        await table.create_tag("t", tagged)
        await table.write([row("kept", revision=2)], [], table.version)
        untagged = table.version
        await table.write([], ["gone"], table.version)
        newest = table.version
        await table.purge()
        with pytest.raises(VersionExpiredError):
            await (await table.as_of(untagged)).get(["kept"], ALL_FIELDS)
        assert (await (await table.as_of(tagged)).get(["gone"], ALL_FIELDS)).rows["gone"].text == "hello"
        found = (await table.get(["full", "kept", "gone"], ALL_FIELDS)).rows
        assert {each.id: each.revision for each in found.values()} == {"full": 7, "kept": 2}
        assert [each.id for each in await table.page(None, 9, NO_FIELDS)] == ["full", "kept"]
        assert not (await table.changes(untagged)).complete
        current = await table.changes(newest)
        assert (current.complete, await changed(current)) == (True, (set(), set()))
        await table.write([row("gone")], [], table.version)
        assert await changed(await table.changes(newest)) == ({"gone"}, set())

    async def test_a_scan_under_way_ends_whole_or_says_that_its_version_is_gone(self, table: Table) -> None:
        await table.write([row(f"{i:05}") for i in range(6000)], [], table.version)
        scan = aiter(table.scan(ALL_FIELDS))
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
