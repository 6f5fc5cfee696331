"""Collections in Milvus through restarts, crashes, losses, several processes and a network that fails."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from medley.v1 import search_service_pb2 as pb
from medley.v1 import vector_pb2
from services.common import filter_codec
from services.common.errors import FilterError, ServiceUnavailableError
from services.common.filters import Comparison, Exists, Operator
from services.common.index_config import Hnsw, IndexConfig, Ivf, ProductQuantization
from services.common.vectors import Metric
from services.common.versions import Version
from services.search.core.change_feed import ChangeBatch, Space, Table
from services.search.core.collection_index import CollectionIndex, Mode, Search, State
from services.search.engines.milvus.client import Milvus
from services.search.engines.milvus.collection_index import MilvusCollectionIndex
from services.search.engines.milvus.errors import MilvusLostError, MilvusUnavailableError
from services.search.engines.milvus.factory import MilvusCollectionFactory
from services.search.engines.milvus.metadata_encoding import MAX_TOKENS
from services.search.engines.milvus.options import MilvusOptions
from services.search.engines.milvus.version_pointer import VersionPointers
from services.search.replication.replica import Replica
from services.search.replication.replicas import Replicas
from services.search.settings import SearchSettings
from services.search.wiring import search_servicer_over
from tests.contract.collection_index import LINE, ORIGIN, Item, MakeCollection, Mirror, at, part_of
from tests.integration.milvus_endpoint import MilvusServer, fresh_options, milvus_server
from tests.integration.tcp_proxy import TcpProxy
from tests.support.change_feed import MemoryChangeFeed
from tests.waiting import HANG_SECONDS, until

pytestmark = pytest.mark.milvus

Connect = Callable[..., MilvusCollectionFactory]
PHOTOS = "collections/photos"


@pytest.fixture
def options() -> MilvusOptions:
    return fresh_options()


@pytest.fixture
def connect(options: MilvusOptions) -> Iterator[Connect]:
    """Makes what a process has: each its own connection."""
    made: list[MilvusCollectionFactory] = []

    def connected(**changes: object) -> MilvusCollectionFactory:
        made.append(MilvusCollectionFactory(replace(options, **changes)))  # type: ignore[arg-type]  # named options
        return made[-1]

    yield connected
    for each in made:
        each.close()


@pytest.fixture
def milvus(options: MilvusOptions) -> Iterator[Milvus]:
    """The Milvus, to look into and to do harm."""
    made = Milvus(options)
    yield made
    made.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MilvusServer]:
    """A Milvus Lite of the test's own."""
    made = milvus_server(tmp_path)
    made.start()
    yield made
    made.kill()


def filled(connect: Connect) -> Mirror:
    mirror = Mirror(MakeCollection(connect().create), LINE)
    mirror.commit({"x": at(1, {"n": 1}), "y": at(2, {"n": 2}), "z": at(3)})
    return mirror


async def reopened(mirror: Mirror, collections: MilvusCollectionFactory) -> MilvusCollectionIndex:
    """Return the index that another process finds."""
    index = await collections.restore(mirror.table)
    assert index is not None
    return index


def of_prefix(milvus: Milvus) -> list[str]:
    return sorted(name for name in milvus.names() if name.startswith(milvus.options.prefix))


async def test_a_restart_goes_on_from_the_version_it_finds(connect: Connect) -> None:
    mirror = filled(connect)
    mirror.index = await reopened(mirror, connect())
    assert mirror.index.version == Version(mirror.uid, 1)
    assert mirror.ids() == {"x", "y", "z"}
    mirror.commit(({"x": at(7)}, ["y"]))
    assert mirror.ids() == {"x", "z"}


async def test_there_is_nothing_to_go_on_from_at_first(connect: Connect) -> None:
    assert await connect().restore(Table(PHOTOS, [LINE], Version("u", 5))) is None


async def test_what_a_crash_left_of_a_change_is_undone(connect: Connect) -> None:
    mirror = filled(connect)
    mirror.index.write(part_of({"x": at(9), "new": at(0)}, ["y"]))  # and no publish: the process is gone
    mirror.index = await reopened(mirror, connect())
    assert mirror.ids() == {"x", "y", "z"}
    mirror.commit({"w": at(4)})
    assert mirror.ids() == {"w", "x", "y", "z"}


async def test_a_crash_while_building_leaves_nothing_behind(connect: Connect, milvus: Milvus) -> None:
    mirror = Mirror(MakeCollection(connect().create), LINE)
    mirror.index.write(part_of({"x": at(9)}))
    half_built = of_prefix(milvus)
    mirror.index = connect().create(mirror.table)
    mirror.commit({"y": at(1)})
    assert mirror.ids() == {"y"}
    assert not set(half_built) & set(of_prefix(milvus))


async def test_a_rebuilt_collection_replaces_the_old_at_its_first_version(connect: Connect, milvus: Milvus) -> None:
    mirror = filled(connect)
    before = of_prefix(milvus)
    old = mirror.index
    mirror.index, mirror.items = connect().create(mirror.table), {}
    mirror.index.write(part_of({"x": at(5)}))
    (found,) = old.search(Search("line", 5), ORIGIN)
    assert len(found.hits) == 3
    mirror.items = {"x": at(5)}
    mirror.commit()
    assert mirror.ids() == {"x"}
    assert len(of_prefix(milvus)) == len(before)
    (found,) = old.search(Search("line", 5), ORIGIN)  # a search that began before the old one went
    assert [hit.item_id for hit in found.hits] == ["x"]


async def test_a_collection_made_again_replaces_its_namesake(connect: Connect, milvus: Milvus) -> None:
    filled(connect)
    before = of_prefix(milvus)
    filled(connect)
    assert len(of_prefix(milvus)) == len(before)
    assert len(VersionPointers(milvus).all()) == 1


async def test_a_dropped_collection_is_removed(connect: Connect, milvus: Milvus) -> None:
    mirror = filled(connect)
    assert isinstance(mirror.index, MilvusCollectionIndex)
    mirror.index.discard()
    assert of_prefix(milvus) == [f"{milvus.options.prefix}_versions"]
    assert VersionPointers(milvus).all() == []


async def test_rows_that_no_version_shows_are_removed(connect: Connect, milvus: Milvus) -> None:
    mirror = Mirror(MakeCollection(connect(grace_seconds=0.0).create), LINE)
    for number in range(5):
        mirror.commit(({"x": at(number), "y": at(9)}, ["z"]))
    (name,) = (name for name in of_prefix(milvus) if "_line_" in name)
    assert mirror.ids() == {"x", "y"}
    assert milvus.count(name, "born > 0") == 2


@pytest.mark.parametrize("harm", ["rows", "marker", "all"])
async def test_what_milvus_lost_is_noticed(connect: Connect, milvus: Milvus, harm: str) -> None:
    mirror = filled(connect)
    for name in of_prefix(milvus):
        if harm == "all" or ("_line_" in name) is (harm == "rows"):
            milvus.drop(name)
    with pytest.raises(MilvusLostError):
        for _ in range(2):
            mirror.commit({"w": at(4)})
            mirror.ids()
    assert mirror.index.version is None
    mirror.index = connect().create(mirror.table)
    mirror.items = {}
    mirror.commit({"x": at(1)})
    assert mirror.ids() == {"x"}


async def test_an_old_state_put_in_its_place_is_noticed(connect: Connect, milvus: Milvus) -> None:
    mirror = filled(connect)
    old = VersionPointers(milvus).read(mirror.uid)
    assert old is not None
    mirror.commit({"w": at(4)})
    VersionPointers(milvus).write(old)
    with pytest.raises(MilvusLostError):
        mirror.index.write(part_of({"v": at(1)}))
    assert mirror.index.version is None


async def test_a_process_that_reads_sees_what_the_writer_publishes(connect: Connect) -> None:
    mirror = filled(connect)
    reader = await reopened(mirror, connect(writer=False, write_seconds=2.0))
    writer = mirror.index
    change = part_of({"w": at(4)}, ["x"])
    reader.write(change)
    with pytest.raises(MilvusUnavailableError, match="is there a process that writes it"):
        reader.publish(Version(mirror.uid, 2))
    mirror.index = reader
    assert mirror.ids() == {"x", "y", "z"}
    mirror.index = writer
    mirror.commit(({"w": at(4)}, ["x"]))
    reader.publish(Version(mirror.uid, 2))
    mirror.index = reader
    assert mirror.ids() == {"w", "y", "z"}


async def test_a_reader_that_hears_nothing_looks_before_rows_are_gone(connect: Connect) -> None:
    mirror = filled(connect)
    reader = await reopened(mirror, connect(writer=False, grace_seconds=0.0))
    mirror.commit({"x": at(9)})
    mirror.index = reader
    assert mirror.ids() == {"x", "y", "z"}


async def test_of_two_writers_the_last_to_begin_writes(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    mirror = filled(connect)
    first = mirror.index
    mirror.index = await reopened(mirror, connect())
    mirror.commit({"w": at(4)})
    first.write(part_of({"stray": at(0)}))
    assert "another process writes" in caplog.text
    first.publish(Version(mirror.uid, 2))
    mirror.commit({"v": at(5)})
    assert mirror.ids() == {"v", "w", "x", "y", "z"}
    first.publish(Version(mirror.uid, 3))
    mirror.index = first
    assert mirror.ids() == {"v", "w", "x", "y", "z"}


@pytest.mark.parametrize("kind", [Hnsw(8, 40, 200), Ivf(16, 16), Ivf(8, 8, ProductQuantization(4))])
async def test_a_space_can_be_indexed_otherwise_at_any_time(connect: Connect, milvus: Milvus, kind: Hnsw | Ivf) -> None:
    mirror = Mirror(MakeCollection(connect().create), space := Space("space", 8, Metric.COSINE))
    chance = np.random.default_rng(3)
    vectors = chance.standard_normal((400, 8)).astype(np.float32)
    mirror.commit({f"i{row}": Item({"space": vector}) for row, vector in enumerate(vectors)})
    before = of_prefix(milvus)
    told = replace(space, config=IndexConfig(kind, exact_below_selectivity=0.1))
    mirror.index.write(ChangeBatch(spaces=(told,)))
    mirror.spaces["space"] = told
    mirror.commit(({}, ["i0"]))
    assert [(state.config, state.state) for state in mirror.index.states()] == [(told.config, State.READY)]
    assert set(of_prefix(milvus)) != set(before)
    assert len(of_prefix(milvus)) == len(before)
    queries = chance.standard_normal((3, 8)).astype(np.float32)
    for each in mirror.index.search(Search("space", 10), queries):
        assert each.mode is Mode.APPROXIMATE
        assert each.candidates == 399
    for each in mirror.search(Search("space", 10, exact=True), queries):
        assert each.mode is Mode.EXACT
    few = frozenset(f"i{row}" for row in range(20))
    assert mirror.search(Search("space", 10, None, few), queries)[0].mode is Mode.EXACT
    mirror.index = await reopened(mirror, connect())
    mirror.commit({"i3": Item({"space": vectors[0]})})
    mirror.search(Search("space", 10, exact=True), queries)


def test_a_filter_that_milvus_cannot_answer_is_refused(connect: Connect) -> None:
    mirror = filled(connect)
    for operator in (Operator.GREATER, Operator.STARTS_WITH):
        with pytest.raises(FilterError, match="Milvus takes at most 255 bytes"):
            mirror.index.search(Search("line", 1, Comparison(("n",), operator, ("a" * 256,))), ORIGIN)


def test_only_filters_by_what_does_not_fit_are_refused(connect: Connect) -> None:
    mirror = filled(connect)
    long = [f"word {number}" * 20 for number in range(MAX_TOKENS)]
    mirror.commit({"huge": at(5, {"n": 1, "words": long, "text": "a" * 100_000})})
    assert mirror.ids(Comparison(("n",), Operator.EQUAL, (1,))) == {"huge", "x"}
    assert mirror.ids(Comparison(("text",), Operator.GREATER, ("a" * 200,))) == {"huge"}
    for condition in (Exists(("words",), False), Comparison(("words",), Operator.EQUAL, ("word 1",))):
        with pytest.raises(FilterError, match="1 items have more there"):
            mirror.index.search(Search("line", 1, condition), ORIGIN)
    many = {f"key {number}": number for number in range(2 * MAX_TOKENS)}
    mirror.commit(({"many": at(6, many)}, ["huge"]))
    with pytest.raises(FilterError):
        mirror.index.search(Search("line", 1, Exists(("never",), True)), ORIGIN)
    mirror.commit(({}, ["many"]))
    assert mirror.ids(Exists(("words",), False)) == {"x", "y", "z"}


def private(server: MilvusServer, **changes: object) -> MilvusCollectionFactory:
    return MilvusCollectionFactory(MilvusOptions(server.uri, **changes))  # type: ignore[arg-type]  # named options


def test_a_killed_milvus_is_unavailable_and_then_goes_on(server: MilvusServer) -> None:
    collections = private(server, seconds=5.0)
    mirror = Mirror(MakeCollection(collections.create), LINE)
    mirror.commit({"x": at(1), "y": at(2)})
    server.kill()
    for call in (mirror.ids, lambda: mirror.index.item_ids("line"), lambda: mirror.index.write(part_of({"z": at(1)}))):
        with pytest.raises(MilvusUnavailableError, match=f"at {server.uri}"):
            call()
    assert mirror.index.version == Version(mirror.uid, 1)
    assert [state.state for state in mirror.index.states()] == [State.FAILED]
    server.start()
    mirror.index.rollback()
    _until(lambda: mirror.ids() == {"x", "y"})
    mirror.commit({"z": at(3)})
    assert mirror.ids() == {"x", "y", "z"}
    collections.close()


def test_milvus_killed_in_the_middle_of_a_change(server: MilvusServer) -> None:
    collections = private(server, seconds=5.0)
    mirror = Mirror(MakeCollection(collections.create), LINE)
    mirror.commit({f"i{x}": at(x) for x in range(50)})
    mirror.index.write(part_of({f"i{x}": at(x + 9) for x in range(25)}, ["i40"]))
    server.kill()
    with pytest.raises(MilvusUnavailableError):
        mirror.index.publish(Version(mirror.uid, 2))
    server.start()
    mirror.index.rollback()
    _until(lambda: len(mirror.ids()) == 50)
    mirror.commit({"i3": at(7)})
    assert len(mirror.ids()) == 50
    collections.close()


def test_a_milvus_that_hangs_is_given_up_in_time(server: MilvusServer) -> None:
    collections = private(server, seconds=3.0)
    mirror = Mirror(MakeCollection(collections.create), LINE)
    mirror.commit({"x": at(1)})
    server.hang()
    with pytest.raises(MilvusUnavailableError, match="does not answer in time"):
        mirror.index.search(Search("line", 1), ORIGIN)
    server.go_on()
    _until(lambda: mirror.ids() == {"x"})
    collections.close()


def test_a_network_that_cuts_and_holds_back_leaves_whole_versions(server: MilvusServer) -> None:
    with TcpProxy(server.port) as proxy:
        collections = MilvusCollectionFactory(MilvusOptions(proxy.uri, seconds=1.0, write_seconds=1.0))
        mirror = Mirror(MakeCollection(collections.create), LINE)
        change: tuple[dict[str, Item], Sequence[str]] = ({f"i{x}": at(x) for x in range(20)}, [])
        _until(partial(_committed, mirror, change), mirror.index.rollback)
        for round_number in range(12):
            change = ({f"i{x}": at(x + round_number) for x in range(0, 20, 3)}, [f"i{round_number}"])
            proxy.cut_after = 150 * round_number
            if round_number % 4 == 3:
                proxy.hold()
            try:
                _committed(mirror, change)
            except ServiceUnavailableError:
                mirror.index.rollback()
                proxy.pass_on()
                _until(partial(_committed, mirror, change), mirror.index.rollback)
            proxy.cut_after = None
            _until(lambda: mirror.ids() is not None)
        assert proxy.cuts > 0
        collections.close()


def _committed(mirror: Mirror, change: tuple[dict[str, Item], Sequence[str]]) -> bool:
    """Commit `change`; a try that fails leaves the mirror as it is."""
    mirror.index.write(part_of(*change))
    mirror.index.publish(Version(mirror.uid, mirror.number + 1))
    mirror.number += 1
    mirror.items = {name: item for name, item in mirror.items.items() if name not in change[1]} | change[0]
    return True


def _until(done: Callable[[], bool], again: Callable[[], object] = lambda: None) -> None:
    """Wait until `done` is true and no more fails."""
    give_up = time.monotonic() + HANG_SECONDS
    while True:
        try:
            assert done()
            return
        except ServiceUnavailableError:
            assert time.monotonic() < give_up
            again()
            time.sleep(0.1)


class World:
    """A store, and search processes that follow it into Milvus."""

    def __init__(self) -> None:
        self.feed = MemoryChangeFeed()

    def commit(self, x: float) -> Version:
        return self.feed.commit(PHOTOS, part_of({f"i{x:g}": at(x)}))

    @asynccontextmanager
    async def process(self, options: MilvusOptions, warm_seconds: float = 5.0) -> AsyncIterator[Replica]:
        collections = MilvusCollectionFactory(options)
        replicas = Replicas(self.feed, collections.create, collections.restore)
        async with replicas.running(0.1, warm_seconds):
            yield await replicas.get(PHOTOS)
        collections.close()


async def found(index: CollectionIndex) -> set[str]:
    (each,) = await asyncio.to_thread(index.search, Search("line", 100), ORIGIN)
    return {hit.item_id for hit in each.hits}


async def wait_for_version(replica: Replica, version: Version | None) -> CollectionIndex:
    async with asyncio.timeout(HANG_SECONDS):
        return await replica.wait_for_version(version)


async def test_a_milvus_that_is_down_at_the_start_is_followed_once_it_is_back(server: MilvusServer) -> None:
    world = World()
    world.feed.create(PHOTOS, [LINE])
    version = world.commit(1)
    server.kill()
    async with world.process(MilvusOptions(server.uri, seconds=1.0), warm_seconds=0.5) as replica:
        assert replica.index is None
        server.start()
        assert await found(await wait_for_version(replica, version)) == {"i1"}


async def test_a_milvus_that_is_down_at_a_restart_is_not_built_anew(server: MilvusServer) -> None:
    world = World()
    world.feed.create(PHOTOS, [LINE])
    version = world.commit(1)
    options = MilvusOptions(server.uri, seconds=1.0)
    async with world.process(options) as replica:
        await wait_for_version(replica, version)
    milvus = Milvus(options)
    names = of_prefix(milvus)
    milvus.close()
    server.kill()
    async with world.process(options, warm_seconds=0.5) as replica:
        server.start()
        assert await found(await wait_for_version(replica, world.commit(2))) == {"i1", "i2"}
        assert of_prefix(milvus) == names
    milvus.close()


async def test_following_resumes_when_milvus_is_back(server: MilvusServer) -> None:
    world = World()
    world.feed.create(PHOTOS, [LINE])
    async with world.process(MilvusOptions(server.uri, seconds=1.0)) as replica:
        await wait_for_version(replica, world.commit(1))
        server.kill()
        version = world.commit(2)
        await asyncio.sleep(0.5)
        with pytest.raises(ServiceUnavailableError):
            await found(await wait_for_version(replica, None))
        server.start()
        assert await found(await wait_for_version(replica, version)) == {"i1", "i2"}


async def test_a_lost_collection_is_built_anew_by_the_searches_that_miss_it(
    options: MilvusOptions, milvus: Milvus
) -> None:
    world = World()
    world.feed.create(PHOTOS, [LINE])
    async with world.process(options) as replica:
        version = world.commit(1)
        await wait_for_version(replica, version)
        for name in of_prefix(milvus):
            milvus.drop(name)
        with pytest.raises(MilvusLostError):
            await found(await wait_for_version(replica, version))
        assert await found(await wait_for_version(replica, version)) == {"i1"}


async def test_a_dropped_collection_leaves_nothing_in_milvus(options: MilvusOptions, milvus: Milvus) -> None:
    world = World()
    world.feed.create(PHOTOS, [LINE])
    async with world.process(options) as replica:
        await wait_for_version(replica, world.commit(1))
        world.feed.drop(PHOTOS)
        await until(lambda: of_prefix(milvus) == [f"{options.prefix}_versions"] and not VersionPointers(milvus).all())


async def test_what_was_deleted_is_erased_at_once(connect: Connect, milvus: Milvus) -> None:
    collections = connect()
    mirror = Mirror(MakeCollection(collections.create), LINE)
    mirror.commit({"x": at(1), "y": at(2)})
    with pytest.raises(MilvusUnavailableError, match="does not hold version"):
        await collections.erase("collections/contract", Version(mirror.uid, 2))
    version = mirror.commit(({"x": at(3)}, ["y"]))
    (name,) = (name for name in of_prefix(milvus) if "_line_" in name)
    assert milvus.count(name, "born > 0") == 3
    await collections.erase("collections/contract", version)
    assert milvus.count(name, "born > 0") == 1
    assert mirror.ids() == {"x"}


async def test_the_service_searches_a_file_of_milvus_lite(tmp_path: Path) -> None:
    store = MemoryChangeFeed()
    store.create(PHOTOS, [LINE])
    settings = SearchSettings(engine="milvus", milvus_uri=str(tmp_path / "x.db"), warm_seconds=5)
    vector = vector_pb2.Vector(float32_le=ORIGIN.astype("<f4").tobytes())
    async with search_servicer_over(settings, store) as servicer:
        version = store.commit(PHOTOS, part_of({f"i{x}": at(x, {"even": x % 2 == 0}) for x in range(20)}))
        even = filter_codec.to_message(Comparison(("even",), Operator.EQUAL, (True,)))
        request = pb.SearchIndexRequest(
            collection=PHOTOS, space="line", vector=vector, top_k=3, version=str(version), filter=even
        )
        response = await servicer.SearchIndex(request, None)  # type: ignore[arg-type]  # no call, no context
        assert [(hit.id, hit.score) for hit in response.hits] == [("i0", 0), ("i2", 2), ("i4", 4)]
        assert response.mode == pb.SEARCH_MODE_EXACT
        indexes = await servicer.ListIndexes(pb.ListIndexesRequest(), None)  # type: ignore[arg-type]
        assert [(index.engine, index.vectors) for index in indexes.indexes] == [("milvus-flat", 20)]
        rebuilt = await servicer.RebuildIndex(pb.RebuildIndexRequest(collection=PHOTOS), None)  # type: ignore[arg-type]
        assert rebuilt.version == str(version)
        assert len((await servicer.SearchIndex(request, None)).hits) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("uri", ["", "milvus:19530", "data/milvus", "ftp://milvus"])
def test_a_uri_that_is_none_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match=r"milvus_uri|SEARCH_MILVUS_URI"):
        SearchSettings(engine="milvus", milvus_uri=uri)


async def test_replicas_follow_the_one_that_writes(options: MilvusOptions) -> None:
    world = World()
    world.feed.create(PHOTOS, [LINE])
    async with (
        world.process(replace(options, writer=False), warm_seconds=0.1) as reader,
        world.process(options) as writer,
    ):
        for x in range(5):
            version = world.commit(x)
            for replica in (reader, writer):
                assert await found(await wait_for_version(replica, version)) == {f"i{each}" for each in range(x + 1)}
