"""The search service and the store it follows, each a process of its own, over real ports."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from medley.v1 import collection_pb2, search_service_pb2_grpc, store_service_pb2_grpc, vector_pb2
from medley.v1 import search_service_pb2 as pb
from medley.v1 import store_service_pb2 as store_pb
from services.common.filter_codec import from_json, to_message
from services.common.filters import matches
from services.common.rpc.client import InProcessStub, call
from services.common.vectors import Matrix, to_bytes
from services.search.settings import SearchSettings
from services.search.wiring import search_servicer
from services.store.settings import StoreSettings
from services.store.wiring import store_servicer
from tests.waiting import HANG_SECONDS

PHOTOS = "collections/photos"
DIMENSIONS = 24
ITEMS = 600

Stub = Any


@asynccontextmanager
async def process(module: str, **environment: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Run a service; yield its process and port once it listens. At the end it is killed, if it still runs."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, env={**os.environ, **environment}, stderr=asyncio.subprocess.PIPE
    )
    assert running.stderr
    try:
        async with asyncio.timeout(HANG_SECONDS):
            while not (found := re.search(rb"listens on port (\d+)", line := await running.stderr.readline())):
                assert line, f"{module} ended"
        reading = asyncio.create_task(running.stderr.read())
        yield running, int(found[1])
        reading.cancel()
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


def store_process(folder: Path, port: int = 0) -> Any:
    settings = {"STORE_DATA_DIR": str(folder), "STORE_DRAIN_SECONDS": "0.2"}
    return process("services.store", STORE_LISTEN=f"127.0.0.1:{port}", **settings)


def search_process(store_port: int, **environment: str) -> Any:
    address = f"127.0.0.1:{store_port}"
    return process("services.search", SEARCH_LISTEN="127.0.0.1:0", SEARCH_STORE_ADDRESS=address, **environment)


@asynccontextmanager
async def stub_of(make: Any, port: int) -> AsyncIterator[Stub]:
    options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield make(channel)


def search_stub(port: int) -> Any:
    return stub_of(search_service_pb2_grpc.SearchServiceStub, port)


def store_stub(port: int) -> Any:
    return stub_of(store_service_pb2_grpc.StoreServiceStub, port)


class Photos:
    """What the collection should hold, and the answers that follow from it."""

    def __init__(self) -> None:
        random = np.random.default_rng(5)
        self.random = random
        self.vectors: dict[str, Matrix] = {}
        self.metadata: dict[str, Mapping[str, object]] = {}

    def rows(self, ids: Sequence[str]) -> list[store_pb.Row]:
        for item_id in ids:
            self.vectors[item_id] = self.random.integers(-2, 3, DIMENSIONS).astype(np.float32)
            self.metadata[item_id] = {"n": int(self.random.integers(100)), "tags": ["a", "é"][: len(item_id) % 3]}
        return [self._row(item_id) for item_id in ids]

    def forget(self, ids: Sequence[str]) -> None:
        for item_id in ids:
            del self.vectors[item_id], self.metadata[item_id]

    def best(self, query: Matrix, top_k: int, spelt: str) -> list[tuple[float, str]]:
        """Whole numbers make distances exact, and many of them equal."""
        condition = from_json(spelt)
        passing = [item for item, metadata in self.metadata.items() if matches(condition, metadata)]
        return sorted((float(np.linalg.norm(self.vectors[item] - query)), item) for item in passing)[:top_k]

    def _row(self, item_id: str) -> store_pb.Row:
        vector = vector_pb2.Vector(float32_le=to_bytes(self.vectors[item_id]))
        return store_pb.Row(id=item_id, metadata_json=json.dumps(self.metadata[item_id]), vectors={"v": vector})


def creation(*spaces: str) -> store_pb.CreateTableRequest:
    made = [
        collection_pb2.Space(name=name, dimensions=DIMENSIONS, metric=vector_pb2.METRIC_EUCLIDEAN) for name in spaces
    ]
    return store_pb.CreateTableRequest(collection=collection_pb2.Collection(name=PHOTOS, spaces=made))


async def create(store: Stub, *spaces: str) -> str:
    answer = await store.CreateTable(creation(*spaces))
    return str(answer.collection.version)


async def write(store: Stub, photos: Photos, ids: Sequence[str]) -> str:
    answer = await store.UpsertRows(store_pb.UpsertRowsRequest(collection=PHOTOS, rows=photos.rows(ids)))
    return str(answer.results[-1].written.version)


async def ask(
    search: Stub, query: Matrix, version: str = "", top_k: int = 20, spelt: str = "{}", *, seconds: float = HANG_SECONDS
) -> Any:
    request = pb.SearchIndexRequest(
        collection=PHOTOS,
        space="v",
        vector=vector_pb2.Vector(float32_le=to_bytes(query)),
        top_k=top_k,
        filter=to_message(from_json(spelt)),
        version=version,
    )
    return await search.SearchIndex(request, timeout=seconds)


async def assert_right(search: Stub, photos: Photos, version: str) -> None:
    for spelt in ("{}", '{"n": {"$lt": 3}}', '{"n": {"$gte": 50}}', '{"tags": "é"}', '{"tags": {"$exists": false}}'):
        query = photos.random.integers(-2, 3, DIMENSIONS).astype(np.float32)
        for top_k in (1, 20, 1000):
            answer = await ask(search, query, version, top_k, spelt)
            best = photos.best(query, top_k, spelt)
            assert [hit.id for hit in answer.hits] == [item for _, item in best], (spelt, top_k)
            assert [hit.score for hit in answer.hits] == pytest.approx([distance for distance, _ in best])
            assert answer.candidates == len(photos.best(query, 10**6, spelt))


async def refused(call: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    (detail,) = rpc_status.from_call(caught.value).details  # type: ignore[arg-type]  # takes an aio error as well
    info = error_details_pb2.ErrorInfo()
    assert detail.Unpack(info)
    return caught.value.code(), info.reason, dict(info.metadata)


async def changed(store: Stub, photos: Photos) -> str:
    """Write, replace and delete items; return the version that holds it all."""
    ids = [f"item {number}" for number in range(ITEMS)]
    await write(store, photos, ids)
    await write(store, photos, [*ids[100:250], "ünï", "new"])
    gone = [*ids[:50], "ünï"]
    photos.forget(gone)
    request = store_pb.DeleteRowsRequest(collection=PHOTOS, ids=store_pb.ItemIds(ids=gone))
    return str((await store.DeleteRows(request)).version)


async def test_the_index_follows_and_is_the_same_when_its_process_is_killed_and_started_again(tmp_path: Path) -> None:
    photos = Photos()
    async with store_process(tmp_path) as (_, store_port), store_stub(store_port) as store:
        await create(store, "v")
        async with search_process(store_port) as (running, port), search_stub(port) as search:
            version = await changed(store, photos)
            await assert_right(search, photos, version)
            query = np.zeros(DIMENSIONS, np.float32)
            before = await ask(search, query, version, 1000)
            running.kill()
            await running.wait()
        for engine in ("faiss", "memory"):
            async with search_process(store_port, SEARCH_ENGINE=engine) as (_, port), search_stub(port) as search:
                async with stub_of(health_pb2_grpc.HealthStub, port) as health:
                    status = await health.Check(health_pb2.HealthCheckRequest(service="medley.v1.SearchService"))
                assert status.status == health_pb2.HealthCheckResponse.SERVING
                listed = (await search.ListIndexes(pb.ListIndexesRequest())).indexes
                assert [(index.engine, index.vectors) for index in listed] == [(f"{engine}-exact", len(photos.vectors))]
                assert await ask(search, query, version, 1000) == before
                await assert_right(search, photos, version)


@pytest.mark.parametrize("end", ["kill", "terminate"])
async def test_the_index_outlives_the_store_and_resumes_with_it(tmp_path: Path, end: str) -> None:
    photos = Photos()
    async with store_process(tmp_path) as (running, store_port), store_stub(store_port) as store:
        await create(store, "v")
        version = await changed(store, photos)
        async with search_process(store_port, SEARCH_WAIT_SECONDS="600") as (_, port), search_stub(port) as search:
            await assert_right(search, photos, version)
            getattr(running, end)()
            await running.wait()
            await assert_right(search, photos, version)
            async with store_process(tmp_path, store_port):
                version = await write(store, photos, ["after the outage", "item 300"])
                await assert_right(search, photos, version)


async def test_in_one_process_with_the_store_it_follows_by_direct_call(tmp_path: Path) -> None:
    photos = Photos()
    async with store_servicer(StoreSettings(directory=tmp_path)) as servicer:
        store = InProcessStub(servicer)
        await call("store", store.CreateTable, creation("v"))
        rows = photos.rows([f"item {number}" for number in range(200)])
        request = store_pb.UpsertRowsRequest(collection=PHOTOS, rows=rows)
        written = await call("store", store.UpsertRows, request)
        async with search_servicer(SearchSettings(), store) as search:
            await assert_right(InProcessStub(search), photos, written.results[0].written.version)


async def test_a_collection_dropped_and_made_again_is_another(tmp_path: Path) -> None:
    photos = Photos()
    query = np.zeros(DIMENSIONS, np.float32)
    async with (
        store_process(tmp_path) as (_, store_port),
        store_stub(store_port) as store,
        search_process(store_port) as (_, port),
        search_stub(port) as search,
    ):
        assert await refused(ask(search, query)) == (
            grpc.StatusCode.NOT_FOUND,
            "COLLECTION_NOT_FOUND",
            {"collection": PHOTOS},
        )
        assert (await ask(search, query, await create(store, "v"))).candidates == 0
        old = await write(store, photos, ["x", "y"])
        await assert_right(search, photos, old)
        code, reason, metadata = await refused(ask(search, query, old.replace(".", ".9")))
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "VERSION_NOT_REACHED")
        assert metadata == {"wanted": old.replace(".", ".9"), "applied": old}
        await store.DropTable(store_pb.DropTableRequest(name=PHOTOS))
        await create(store, "v", "w")
        photos.forget(["x", "y"])
        await assert_right(search, photos, await write(store, photos, ["z"]))
        code, reason, metadata = await refused(ask(search, query, old))
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_UNKNOWN")
        assert metadata == {"collection": PHOTOS, "version": old}
