"""The integrity check over four services in memory: damage that no user can cause is found and repaired."""

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
from services.store.core.rows import ALL_FIELDS, Row
from services.store.core.table import Table
from services.store.settings import StoreSettings
from services.store.wiring import store_servicer
from tests.integration.conversation import answers, item, outcomes, requests, vector

SHOES = "collections/shoes"
FoundKinds = set[tuple[str, str, str, bool]]


@dataclass
class Services:
    """All four services in this process, with access to the internals of two."""

    gateway: Any
    store: Any
    search: Any

    async def table(self) -> Table:
        table: Table = await self.store._collections.table(SHOES)
        return table

    async def index(self) -> CollectionIndex:
        replica = await self.search._searcher._replicas.get(SHOES)
        index: CollectionIndex = await replica.wait_for_version(None)
        return index

    async def row(self, row_id: str) -> Row:
        return (await (await self.table()).get([row_id], ALL_FIELDS)).rows[row_id]

    async def write(self, *rows: Row) -> None:
        table = await self.table()
        await table.write(rows, [], table.version)

    async def check(self, **options: Any) -> tuple[FoundKinds, list[pb.CheckProgress]]:
        request = pb.CheckCollectionsRequest(collection=SHOES, vector_sample=100, **options)
        parts = [each async for each in stream("gateway", InProcessStub(self.gateway).CheckCollections, request)]
        findings = [each.finding for each in parts if each.HasField("finding")]
        done = [each.progress for each in parts if each.progress.done]
        return {(kind(each.kind), each.id, each.space, each.repaired) for each in findings}, done


def kind(number: int) -> str:
    from medley.v1 import check_pb2

    return check_pb2.FindingKind.Name(number).removeprefix("FINDING_KIND_").lower()  # type: ignore[arg-type]  # a number


@asynccontextmanager
async def _start_services(tmp_path: Path) -> AsyncIterator[Services]:
    settings = StoreSettings(rows="memory", media="memory", directory=tmp_path)
    async with (
        store_servicer(settings) as store,
        embedder_servicer(EmbedderSettings(threads=1)) as embedder,
        search_servicer(SearchSettings(engine="memory", wait_seconds=2), store=InProcessStub(store)) as search,
        gateway_servicer(
            GatewaySettings(), Peers(InProcessStub(embedder), InProcessStub(store), InProcessStub(search))
        ) as gateway,
    ):
        yield Services(gateway, store, search)


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    async with _start_services(tmp_path) as services:
        stub = InProcessStub(services.gateway)
        spaces = [
            collection_pb2.Space(name="text", model="minilm"),
            collection_pb2.Space(name="own", dimensions=2, metric=vector_pb2.METRIC_EUCLIDEAN),
        ]
        request = pb.CreateCollectionRequest(collection=collection_pb2.Collection(name=SHOES, spaces=spaces))
        await call("gateway", stub.CreateCollection, request)
        items = [item(f"shoe{i}", text=f"shoe number {i}", vectors={"own": vector(i, 1)}) for i in range(4)]
        ingested = await answers(stream("gateway", stub.IngestItems, requests(SHOES, items)))
        assert outcomes(ingested) == ["written"] * 4
        yield services


async def test_nothing_wrong(services: Services) -> None:
    findings, (done,) = await services.check()
    assert findings == set()
    assert (done.rows, done.rows_total, done.vectors_compared) == (4, 4, 8)
    assert done.version == str(Version((await services.table()).schema.uid, (await services.table()).version))


async def test_an_index_that_differs_is_found_and_rebuilt(services: Services) -> None:
    index = await services.index()
    await services.check()
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
    assert (await services.check())[0] == {(*each, False) for each in wrong}
    assert (await services.check(repair=True))[0] == {(*each, True) for each in wrong}
    assert (await services.check())[0] == set()


async def test_rows_that_disagree_with_their_vectors_are_found_and_repaired(services: Services) -> None:
    rows = [await services.row(f"shoe{i}") for i in range(4)]
    nan = np.full(384, np.nan, np.float32)
    await services.write(
        replace(rows[0], vectors={"own": rows[0].vectors["own"]}, spaces=("own",)),
        replace(rows[1], vectors={**rows[1].vectors, "text": nan}),
        replace(rows[2], spaces=("own",)),
        replace(rows[3], vectors={**rows[3].vectors, "own": np.array([np.inf, 1], np.float32)}),
    )
    repairable = {
        ("vector_missing", "shoe0", "text"),
        ("vector_invalid", "shoe1", "text"),
        ("spaces_differ", "shoe2", ""),
    }
    lost = ("vector_invalid", "shoe3", "own", False)
    assert (await services.check())[0] == {(*each, False) for each in repairable} | {lost}
    assert (await services.check(repair=True))[0] == {(*each, True) for each in repairable} | {lost}
    for i in range(3):
        repaired = await services.row(f"shoe{i}")
        assert repaired.spaces == ("text", "own")
        assert np.allclose(repaired.vectors["text"], rows[i].vectors["text"], atol=1e-5)
    assert (await services.check())[0] == {lost}


async def test_a_fingerprint_mismatch_is_found(services: Services) -> None:
    stub = InProcessStub(services.store)
    space = collection_pb2.Space(name="text", model="minilm", dimensions=384, fingerprint="of an older model")
    gone = collection_pb2.Space(name="gone", model="no-such-model", dimensions=3, fingerprint="p")
    for name, each in (("old", space), ("gone", gone)):
        stale = collection_pb2.Collection(name=f"collections/{name}", spaces=[each])
        await call("store", stub.CreateTable, store_service_pb2.CreateTableRequest(collection=stale))
    request = pb.CheckCollectionsRequest(repair=True)
    parts = [each async for each in stream("gateway", InProcessStub(services.gateway).CheckCollections, request)]
    found = [each.finding for each in parts if each.HasField("finding")]
    assert {(kind(each.kind), each.collection, each.space) for each in found} == {
        ("fingerprint_foreign", "collections/old", "text"),
        ("fingerprint_foreign", "collections/gone", "gone"),
    }
    assert all("new embeddings" in each.not_repaired_because for each in found)


async def test_concurrent_writes_are_no_damage(services: Services) -> None:
    """Rows written between the scan and the comparison with the index may differ."""
    request = pb.CheckCollectionsRequest(collection=SHOES, vector_sample=100)
    found = []
    async for part in stream("gateway", InProcessStub(services.gateway).CheckCollections, request):
        if part.HasField("finding"):
            found.append(part.finding)
        elif part.progress.rows == 4 and not part.progress.done:
            row = await services.row("shoe0")
            await services.write(replace(row, vectors={"own": np.array([9, 9], np.float32)}, spaces=("own",)))
            table = await services.table()
            await table.write([replace(row, id="new")], ["shoe1"], table.version)
    assert found == []


async def test_nothing_is_dropped_without_repair(services: Services) -> None:
    with pytest.raises(ArgumentError):
        await services.check(drop_lost_media=True)
