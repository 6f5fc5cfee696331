"""How spaces are indexed, over real ports, in one process and in four: chosen, changed, refused and reported."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from medley.v1 import collection_pb2, index_config_pb2, search_service_pb2
from medley.v1 import gateway_service_pb2 as pb
from medley.v1 import gateway_service_pb2_grpc as pb_grpc
from tests.integration.conversation import ids, ingest, item, make_collection, own_space, refused, search, vector
from tests.integration.suite import Suite, four_processes, one_process
from tests.waiting import HANG_SECONDS

SHAPES = {"one process": one_process, "four processes": four_processes}
SECONDS = 20.0
POINTS = 60
HNSW = index_config_pb2.IndexConfig(
    hnsw=index_config_pb2.HnswIndex(
        m=16, ef_construction=100, ef_search=64, storage=index_config_pb2.VECTOR_STORAGE_FLOAT32
    ),
    exact_below_selectivity=0.1,
    recall_floor=0.9,
)
APPROXIMATE = search_service_pb2.SEARCH_MODE_APPROXIMATE
EXACT = index_config_pb2.IndexConfig(exact=index_config_pb2.ExactIndex())
Gateway = pb_grpc.GatewayServiceStub


@pytest.fixture(scope="module", params=SHAPES)
def suite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    with SHAPES[request.param](tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture
async def gateway(suite: Suite) -> AsyncIterator["pb_grpc.GatewayServiceAsyncStub"]:
    async with suite.gateway() as stub:
        yield stub


@pytest.fixture
async def points(gateway: "pb_grpc.GatewayServiceAsyncStub") -> AsyncIterator[str]:
    """A collection of one space with some items."""
    name = (await make_collection(gateway, "points", own_space())).name
    await ingest(
        gateway, name, *(item(f"p{number:02}", vectors={"own": vector(number + 1, 1)}) for number in range(POINTS))
    )
    yield name
    await gateway.DropCollection(pb.DropCollectionRequest(name=name))


def update(name: str, index: index_config_pb2.IndexConfig | None, space: str = "own") -> pb.UpdateSpaceRequest:
    return pb.UpdateSpaceRequest(collection=name, space=space, index=index)


async def wait_for_index(
    gateway: "pb_grpc.GatewayServiceAsyncStub", collection: collection_pb2.Collection
) -> search_service_pb2.Index:
    """Return the index of the first space once GetStatus reports it as up to date with `collection`."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            status = await gateway.GetStatus(pb.GetStatusRequest())
            mine = [each for each in status.collections if each.collection.name == collection.name]
            for index in mine[0].indexes if mine else ():
                current = index.version == collection.version and index.config == collection.spaces[0].index
                if current and index.state != search_service_pb2.INDEX_STATE_BUILDING:
                    return index
            await asyncio.sleep(0.05)


async def wait_for_collection(gateway: "pb_grpc.GatewayServiceAsyncStub", name: str) -> collection_pb2.Collection:
    """Return the collection once the restarted store answers."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            try:
                return (await gateway.GetCollection(pb.GetCollectionRequest(name=name))).collection
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.05)


async def test_a_collection_is_indexed_as_it_was_created(gateway: "pb_grpc.GatewayServiceAsyncStub") -> None:
    chosen = collection_pb2.Space(name="own", dimensions=2, index=HNSW)
    made = await make_collection(gateway, "chosen", chosen, own_space("other"))
    assert [space.index.WhichOneof("kind") for space in made.spaces] == ["hnsw", "exact"]
    assert made.spaces[0].index == HNSW
    assert (await gateway.GetCollection(pb.GetCollectionRequest(name=made.name))).collection == made
    again = await make_collection(gateway, "chosen", own_space(), own_space("other"))
    assert again == made, "the index is not part of a collection's identity"
    await gateway.DropCollection(pb.DropCollectionRequest(name=made.name))


async def test_an_index_is_changed_and_reported_while_searches_find_the_same(
    gateway: "pb_grpc.GatewayServiceAsyncStub", points: str
) -> None:
    before = (await gateway.GetCollection(pb.GetCollectionRequest(name=points))).collection
    arm = pb.Arm(vector=vector(3, 1), space="own")
    found = await gateway.Search(search(points, arm, version=before.version))
    for index in (HNSW, EXACT):
        updated = (await gateway.UpdateSpace(update(points, index))).collection
        assert updated.version != before.version
        assert updated.spaces[0].index.WhichOneof("kind") == index.WhichOneof("kind")
        assert (await gateway.GetCollection(pb.GetCollectionRequest(name=points))).collection == updated
        answer = await gateway.Search(search(points, arm, version=updated.version))
        assert ids(answer) == ids(found)
        state = await wait_for_index(gateway, updated)
        assert (state.vectors, state.lag_seconds) == (POINTS, 0)
        assert ("hnsw" in state.engine) == (index is HNSW)
        settled = await gateway.Search(search(points, arm))
        assert ids(settled) == ids(found)
        assert settled.arms[0].mode == (APPROXIMATE if index is HNSW else search_service_pb2.SEARCH_MODE_EXACT)


async def test_an_exact_search_is_exact_and_says_what_it_compared(
    gateway: "pb_grpc.GatewayServiceAsyncStub", points: str
) -> None:
    await wait_for_index(gateway, (await gateway.UpdateSpace(update(points, HNSW))).collection)
    arm = pb.Arm(vector=vector(3, 1), space="own")
    answer = await gateway.Search(search(points, arm, exact=True))
    (report,) = answer.arms
    assert (report.mode, report.candidates) == (search_service_pb2.SEARCH_MODE_EXACT, POINTS)
    assert 0 < report.compared <= POINTS


async def test_a_gateway_with_a_cached_definition_still_ingests(
    gateway: "pb_grpc.GatewayServiceAsyncStub", points: str
) -> None:
    for number, index in enumerate((HNSW, EXACT)):
        await gateway.UpdateSpace(update(points, index))
        answers = await ingest(gateway, points, item(f"new{number}", vectors={"own": vector(-1, number)}))
        arm = pb.Arm(vector=vector(-1, number), space="own")
        version = answers[0].result.written.version
        assert ids(await gateway.Search(search(points, arm, version=version)))[0] == f"new{number}"


async def test_an_invalid_index_is_refused(gateway: "pb_grpc.GatewayServiceAsyncStub", points: str) -> None:
    bad = index_config_pb2.IndexConfig(hnsw=index_config_pb2.HnswIndex(m=3))
    created = collection_pb2.Space(name="own", dimensions=2, index=bad)
    for call, field in (
        (gateway.UpdateSpace(update(points, bad)), "index.hnsw.m"),
        (make_collection(gateway, "new", created), "index.hnsw.m"),
        (gateway.UpdateSpace(update(points, None)), "index"),
        (gateway.UpdateSpace(update("points", HNSW)), "collection"),
    ):
        metadata = await refused(call, grpc.StatusCode.INVALID_ARGUMENT, "ARGUMENT_INVALID")
        assert metadata["field"] == field
    for missing, reason in (
        (update(points, HNSW, "none"), "SPACE_NOT_FOUND"),
        (update("collections/none", HNSW), "COLLECTION_NOT_FOUND"),
    ):
        await refused(gateway.UpdateSpace(missing), grpc.StatusCode.NOT_FOUND, reason)


async def test_a_search_service_that_restarts_uses_the_current_config(tmp_path: Path) -> None:
    with four_processes(tmp_path) as suite:
        async with suite.gateway() as gateway:
            name = (await make_collection(gateway, "points", own_space())).name
            await ingest(
                gateway, name, *(item(f"p{number:02}", vectors={"own": vector(number, 1)}) for number in range(POINTS))
            )
            suite.kill("search")
            updated = (await gateway.UpdateSpace(update(name, HNSW))).collection
            suite.start("search")
            assert "hnsw" in (await wait_for_index(gateway, updated)).engine
            for service in ("search", "store"):
                suite.kill(service)
            for service in ("store", "search"):
                suite.start(service)
            there = await wait_for_collection(gateway, name)
            assert there.spaces == updated.spaces
            assert "hnsw" in (await wait_for_index(gateway, there)).engine
