"""A check joins what four services say: damage is put where no user can, in memory, and must be found and repaired."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medley.v1 import collection_pb2, store_service_pb2, vector_pb2
from medley.v1 import gateway_service_pb2 as pb
from services.common.errors import ArgumentError
from services.common.rpc.client import InProcessStub, call, stream
from services.common.versions import Version
from services.embedder.settings import EmbedderSettings
from services.embedder.wiring import embedder_servicer
from services.gateway.peers import Peers
from services.gateway.settings import GatewaySettings
from services.gateway.wiring import gateway_servicer
from services.search.core.change_feed import ChangeBatch, SpaceVectors
from services.search.core.collection_index import CollectionIndex
from services.search.settings import SearchSettings
from services.search.wiring import search_servicer
from services.store.core.rows import EVERYTHING, Row
from services.store.core.table import Table
from services.store.settings import StoreSettings
from services.store.wiring import store_servicer
from tests.integration.conversation import answers, item, outcomes, requests, vector

SHOES = "collections/shoes"
Told = set[tuple[str, str, str, bool]]


@dataclass
class World:
    """All four services in this process, and the insides of two."""

    gateway: Any
    store: Any
    search: Any

    async def table(self) -> Table:
        table: Table = await self.store._collections.table(SHOES)
        return table

    async def index(self) -> CollectionIndex:
        follower = await self.search._searcher._followers.follower(SHOES)
        index: CollectionIndex = await follower.reached(None)
        return index

    async def row(self, row_id: str) -> Row:
        return (await (await self.table()).get([row_id], EVERYTHING)).rows[row_id]

    async def write(self, *rows: Row) -> None:
        table = await self.table()
        await table.write(rows, [], table.version)

    async def check(self, **options: Any) -> tuple[Told, list[pb.CheckProgress]]:
        request = pb.CheckCollectionsRequest(collection=SHOES, vector_sample=100, **options)
        parts = [each async for each in stream("gateway", InProcessStub(self.gateway).CheckCollections, request)]
        findings = [each.finding for each in parts if each.HasField("finding")]
        done = [each.progress for each in parts if each.progress.done]
        return {(kind(each.kind), each.id, each.space, each.repaired) for each in findings}, done


def kind(number: int) -> str:
    from medley.v1 import check_pb2

    return check_pb2.FindingKind.Name(number).removeprefix("FINDING_KIND_").lower()  # type: ignore[arg-type]  # a number


@asynccontextmanager
async def _world(tmp_path: Path) -> AsyncIterator[World]:
    settings = StoreSettings(rows="memory", media="memory", directory=tmp_path)
    async with (
        store_servicer(settings) as store,
        embedder_servicer(EmbedderSettings(threads=1)) as embedder,
        search_servicer(SearchSettings(engine="memory", wait_seconds=2), store=InProcessStub(store)) as search,
        gateway_servicer(
            GatewaySettings(), Peers(InProcessStub(embedder), InProcessStub(store), InProcessStub(search))
        ) as gateway,
    ):
        yield World(gateway, store, search)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with _world(tmp_path) as world:
        stub = InProcessStub(world.gateway)
        spaces = [
            collection_pb2.Space(name="text", model="minilm"),
            collection_pb2.Space(name="own", dimensions=2, metric=vector_pb2.METRIC_EUCLIDEAN),
        ]
        request = pb.CreateCollectionRequest(collection=collection_pb2.Collection(name=SHOES, spaces=spaces))
        await call("gateway", stub.CreateCollection, request)
        items = [item(f"shoe{i}", text=f"shoe number {i}", vectors={"own": vector(i, 1)}) for i in range(4)]
        ingested = await answers(stream("gateway", stub.IngestItems, requests(SHOES, items)))
        assert outcomes(ingested) == ["written"] * 4
        yield world


async def test_nothing_wrong(world: World) -> None:
    findings, (done,) = await world.check()
    assert findings == set()
    assert (done.rows, done.rows_total, done.vectors_compared) == (4, 4, 8)
    assert done.version == str(Version((await world.table()).definition.uid, (await world.table()).version))


async def test_an_index_that_differs_is_found_and_rebuilt(world: World) -> None:
    index = await world.index()
    await world.check()
    assert index.version is not None
    far = SpaceVectors(np.arange(2), np.array([[50, 50], [60, 60]], np.float32))
    index.write(ChangeBatch(["ghost", "shoe2"], ["{}", "{}"], {"own": far}, deleted_ids=["shoe1"]))
    index.publish(index.version)
    wrong = {
        ("index_missing", "shoe1", "text"),
        ("index_missing", "shoe1", "own"),
        ("index_missing", "shoe2", "text"),
        ("index_extra", "ghost", "own"),
        ("index_differs", "shoe2", "own"),
    }
    assert (await world.check())[0] == {(*each, False) for each in wrong}
    assert (await world.check(repair=True))[0] == {(*each, True) for each in wrong}
    assert (await world.check())[0] == set()


async def test_rows_that_disagree_with_their_vectors_are_found_and_mended(world: World) -> None:
    rows = [await world.row(f"shoe{i}") for i in range(4)]
    nan = np.full(384, np.nan, np.float32)
    await world.write(
        replace(rows[0], vectors={"own": rows[0].vectors["own"]}, spaces=("own",)),
        replace(rows[1], vectors={**rows[1].vectors, "text": nan}),
        replace(rows[2], spaces=("own",)),
        replace(rows[3], vectors={**rows[3].vectors, "own": np.array([np.inf, 1], np.float32)}),
    )
    mendable = {
        ("vector_missing", "shoe0", "text"),
        ("vector_invalid", "shoe1", "text"),
        ("spaces_differ", "shoe2", ""),
    }
    lost = ("vector_invalid", "shoe3", "own", False)
    assert (await world.check())[0] == {(*each, False) for each in mendable} | {lost}
    assert (await world.check(repair=True))[0] == {(*each, True) for each in mendable} | {lost}
    for i in range(3):
        mended = await world.row(f"shoe{i}")
        assert mended.spaces == ("text", "own")
        assert np.allclose(mended.vectors["text"], rows[i].vectors["text"], atol=1e-5)
    assert (await world.check())[0] == {lost}


async def test_a_foreign_fingerprint_is_found(world: World) -> None:
    stub = InProcessStub(world.store)
    space = collection_pb2.Space(name="text", model="minilm", dimensions=384, fingerprint="of another year")
    gone = collection_pb2.Space(name="gone", model="no-such-model", dimensions=3, fingerprint="p")
    for name, each in (("old", space), ("gone", gone)):
        wanted = collection_pb2.Collection(name=f"collections/{name}", spaces=[each])
        await call("store", stub.CreateTable, store_service_pb2.CreateTableRequest(collection=wanted))
    request = pb.CheckCollectionsRequest(repair=True)
    parts = [each async for each in stream("gateway", InProcessStub(world.gateway).CheckCollections, request)]
    found = [each.finding for each in parts if each.HasField("finding")]
    assert {(kind(each.kind), each.collection, each.space) for each in found} == {
        ("fingerprint_foreign", "collections/old", "text"),
        ("fingerprint_foreign", "collections/gone", "gone"),
    }
    assert all("embedding anew" in each.not_repaired_because for each in found)


async def test_writers_meanwhile_are_no_damage(world: World) -> None:
    """Rows written between the scan and the look at the index differ rightly."""
    request = pb.CheckCollectionsRequest(collection=SHOES, vector_sample=100)
    found = []
    async for part in stream("gateway", InProcessStub(world.gateway).CheckCollections, request):
        if part.HasField("finding"):
            found.append(part.finding)
        elif part.progress.rows == 4 and not part.progress.done:
            row = await world.row("shoe0")
            await world.write(replace(row, vectors={"own": np.array([9, 9], np.float32)}, spaces=("own",)))
            table = await world.table()
            await table.write([replace(row, id="new")], ["shoe1"], table.version)
    assert found == []


async def test_nothing_is_dropped_without_repair(world: World) -> None:
    with pytest.raises(ArgumentError):
        await world.check(drop_lost_media=True)
