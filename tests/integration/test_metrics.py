"""What the services tell Prometheus, scraped over HTTP from a suite that runs."""

import asyncio
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from medley.v1 import collection_pb2, index_config_pb2, search_service_pb2, search_service_pb2_grpc
from medley.v1 import gateway_service_pb2 as pb
from medley.v1 import gateway_service_pb2_grpc as pb_grpc
from tests.integration.conversation import ingest, item, make_collection, own_space, search, vector, versions
from tests.integration.suite import ROOT, Suite, four_processes
from tests.ports import reserve_port
from tests.waiting import HANG_SECONDS

SECONDS = 20.0
POINTS = {"collection": "collections/points", "space": "own"}
Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def ports() -> Mapping[str, int]:
    return {service: reserve_port() for service in ("search", "gateway")}


@pytest.fixture(scope="module")
def suite(ports: Mapping[str, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    listen = {f"{service.upper()}_METRICS_LISTEN": f"127.0.0.1:{port}" for service, port in ports.items()}
    with four_processes(
        tmp_path_factory.mktemp("data"), **listen, SEARCH_DISCOVER_SECONDS="0.2", SEARCH_RECALL_SAMPLE_RATE="1"
    ) as running:
        yield running


@pytest.fixture
async def gateway(suite: Suite) -> AsyncIterator["pb_grpc.GatewayServiceAsyncStub"]:
    async with suite.gateway() as stub:
        yield stub


@pytest.fixture
async def points(gateway: "pb_grpc.GatewayServiceAsyncStub") -> AsyncIterator[tuple[str, str]]:
    """A collection with five items, and its version."""
    name = (await make_collection(gateway, "points", own_space())).name
    items = [item(f"p{number}", vectors={"own": vector(number + 1, 1)}) for number in range(5)]
    yield name, versions(await ingest(gateway, name, *items))
    await gateway.DropCollection(pb.DropCollectionRequest(name=name))


def scraped(port: int, path: str = "/metrics") -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=SECONDS) as answer:
        assert answer.status == 200
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


async def test_indexes_and_searches_are_told(
    gateway: "pb_grpc.GatewayServiceAsyncStub", points: tuple[str, str], ports: Mapping[str, int]
) -> None:
    name, version = points
    for _ in range(3):
        await gateway.Search(search(name, pb.Arm(vector=vector(1, 1), space="own"), version=version))
    samples = await asyncio.to_thread(scraped, ports["search"])
    assert value(samples, "medley_index_vectors", **POINTS) == 5
    assert value(samples, "medley_index_memory_bytes", **POINTS) > 0
    assert value(samples, "medley_index_lag_seconds", **POINTS) == 0
    states = {state: value(samples, "medley_index_state", **POINTS, state=state) for state in ("ready", "failed")}
    assert states == {"ready": 1, "failed": 0}
    assert value(samples, "medley_searches_total", **POINTS, mode="exact") == 3
    assert value(samples, "medley_search_seconds_count", **POINTS, mode="exact") == 3
    assert value(samples, "medley_search_seconds_sum", **POINTS, mode="exact") > 0
    assert value(samples, "medley_search_compared_vectors_total", **POINTS) >= 3
    assert value(samples, "process_resident_memory_bytes") > 0


async def test_recall_is_told_of_an_approximate_index(
    gateway: "pb_grpc.GatewayServiceAsyncStub", ports: Mapping[str, int]
) -> None:
    hnsw = index_config_pb2.IndexConfig(hnsw=index_config_pb2.HnswIndex())
    name = (await make_collection(gateway, "near", collection_pb2.Space(name="own", dimensions=2, index=hnsw))).name
    answers = await ingest(
        gateway, name, *(item(f"p{number:02}", vectors={"own": vector(number + 1, 1)}) for number in range(50))
    )
    arm, labels = pb.Arm(vector=vector(9, 1), space="own"), {"collection": name, "space": "own"}
    approximate = "medley_searches_total", frozenset({**labels, "mode": "approximate"}.items())
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            await gateway.Search(search(name, arm, version=versions(answers)))
            samples = await asyncio.to_thread(scraped, ports["search"])
            recall = {key[1]: value for key, value in samples.items() if key[0] == "medley_index_recall"}
            if recall:
                break
            await asyncio.sleep(0.1)
    (shares,) = (dict(labelled) for labelled in recall)
    assert shares.items() >= labels.items()
    assert (shares["share_above"], shares["share_up_to"]) == ("1", "1"), "without a filter"
    assert 0 < next(iter(recall.values())) <= 1
    assert value(samples, "medley_index_recall_queries", **shares) >= 1
    assert samples[approximate] >= 1
    await gateway.DropCollection(pb.DropCollectionRequest(name=name))


async def test_a_batch_counts_each_of_its_vectors(
    suite: Suite, points: tuple[str, str], ports: Mapping[str, int]
) -> None:
    name, version = points
    options = search_service_pb2.SearchIndexBatchOptions(collection=name, space="own", version=version)
    before = await asyncio.to_thread(scraped, ports["search"])
    counted = before.get(("medley_searches_total", frozenset({**POINTS, "mode": "exact"}.items())), 0.0)

    async def parts() -> AsyncIterator[search_service_pb2.SearchIndexBatchRequest]:
        yield search_service_pb2.SearchIndexBatchRequest(options=options)
        vectors = search_service_pb2.VectorBatch(float32_le=vector(1, 1).float32_le * 7)
        yield search_service_pb2.SearchIndexBatchRequest(vectors=vectors)

    async with suite.channel("search") as channel:
        stub = search_service_pb2_grpc.SearchServiceStub(channel)
        answers = [answer async for answer in stub.SearchIndexBatch(parts())]
    assert sum(len(answer.rankings) for answer in answers) == 7
    after = await asyncio.to_thread(scraped, ports["search"])
    assert value(after, "medley_searches_total", **POINTS, mode="exact") == counted + 7


async def test_calls_are_counted_by_method_and_status(
    gateway: "pb_grpc.GatewayServiceAsyncStub", points: tuple[str, str], ports: Mapping[str, int]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await gateway.GetCollection(pb.GetCollectionRequest(name="collections/none"))
    await gateway.GetCollection(pb.GetCollectionRequest(name=points[0]))
    samples = await asyncio.to_thread(scraped, ports["gateway"])
    method = "/medley.v1.GatewayService/GetCollection"
    assert value(samples, "medley_calls_total", method=method, code="NOT_FOUND") == 1
    assert value(samples, "medley_calls_total", method=method, code="OK") >= 1
    assert value(samples, "medley_call_seconds_count", method=method) >= 2
    ingested = "/medley.v1.GatewayService/IngestItems"
    assert value(samples, "medley_calls_total", method=ingested, code="OK") >= 1


async def test_an_index_that_is_gone_is_told_no_more(
    gateway: "pb_grpc.GatewayServiceAsyncStub", ports: Mapping[str, int]
) -> None:
    spaces = [collection_pb2.Space(name="own", dimensions=2)]
    name = (await make_collection(gateway, "brief", *spaces)).name
    answers = await ingest(gateway, name, item("a", vectors={"own": vector(1, 1)}))
    await gateway.Search(search(name, pb.Arm(vector=vector(1, 1), space="own"), version=versions(answers)))
    key = "medley_index_vectors", frozenset({"collection": name, "space": "own"}.items())
    assert (await asyncio.to_thread(scraped, ports["search"]))[key] == 1
    await gateway.DropCollection(pb.DropCollectionRequest(name=name))
    async with asyncio.timeout(HANG_SECONDS):
        while key in await asyncio.to_thread(scraped, ports["search"]):  # noqa: ASYNC110  # another process tells
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("address", ["taken", "no-port", "127.0.0.1:99999"])
def test_an_address_that_cannot_be_had_keeps_a_service_from_starting(address: str, tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        given = f"127.0.0.1:{holder.getsockname()[1]}" if address == "taken" else address
        environment = {
            "STORE_METRICS_LISTEN": given,
            "STORE_LISTEN": "127.0.0.1:0",
            "STORE_DATA_DIR": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "PATH": "/usr/bin:/bin",
        }
        command = [sys.executable, "-m", "services.store"]
        ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert f"store cannot start: cannot serve metrics on {given}" in ended.stderr
