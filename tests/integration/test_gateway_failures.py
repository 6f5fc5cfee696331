"""The suite when a process is killed, unreachable or started twice."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from medley._transport.aio_status import server_status
from medley.v1 import collection_pb2, store_service_pb2
from medley.v1 import gateway_service_pb2 as pb
from medley.v1 import gateway_service_pb2_grpc as pb_grpc
from tests.integration.conversation import (
    SECONDS,
    answers,
    ids,
    ingest,
    item,
    make_collection,
    outcomes,
    own_space,
    refused,
    requests,
    search,
    vector,
    versions,
)
from tests.integration.suite import START_SECONDS, Suite, command, four_processes, one_process
from tests.waiting import HANG_SECONDS, until_works

UNAVAILABLE, INVALID = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INVALID_ARGUMENT
TEXT_SPACE = collection_pb2.Space(name="text", model="minilm")


async def acknowledged_until_cut(
    gateway: "pb_grpc.GatewayServiceAsyncStub", name: str, enough: int, reached: asyncio.Event
) -> dict[str, int]:
    """Ingest without end; return the revisions acknowledged before the connection was cut."""

    async def endless() -> AsyncIterator[pb.IngestItemsRequest]:
        yield pb.IngestItemsRequest(target=pb.IngestTarget(collection=name))
        number = 0
        while True:
            each = item(f"item{number}", text=f"text {number}", vectors={"own": vector(number + 1, 1)})
            yield pb.IngestItemsRequest(chunk=pb.IngestChunk(items=[each]))
            number += 1

    written: dict[str, int] = {}
    call = gateway.IngestItems(endless(), timeout=SECONDS)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with server_status(call):
            async for response in call:
                written |= {answer.id: answer.result.written.revision for answer in response.items}
                if len(written) >= enough:
                    reached.set()
    assert caught.value.code() is UNAVAILABLE
    return written


async def test_what_was_acknowledged_survives_a_kill_in_the_middle_of_an_ingest(tmp_path: Path) -> None:
    with one_process(tmp_path) as suite:
        async with suite.gateway() as gateway:
            name = (await make_collection(gateway, "things", TEXT_SPACE, own_space())).name
            reached = asyncio.Event()
            cut = asyncio.create_task(acknowledged_until_cut(gateway, name, 700, reached))
            await asyncio.wait_for(reached.wait(), HANG_SECONDS)
            await asyncio.to_thread(suite.kill)
            written = await cut
        await asyncio.to_thread(suite.start)
        async with suite.gateway() as gateway:
            await _all_there_once(gateway, name, list(written))


async def _all_there_once(gateway: "pb_grpc.GatewayServiceAsyncStub", name: str, written: list[str]) -> None:
    lookups = (await gateway.GetItems(pb.GetItemsRequest(collection=name, ids=written))).lookups
    assert [lookup.item.id for lookup in lookups] == written
    count = (await gateway.CountItems(pb.CountItemsRequest(collection=name))).count
    assert count >= len(written)
    version = (await gateway.GetCollection(pb.GetCollectionRequest(name=name))).collection.version
    arm = pb.Arm(vector=vector(1, 0), space="own")
    found = ids(await gateway.Search(search(name, arm, top_k=10_000, version=version), timeout=SECONDS))
    assert set(written) <= set(found)
    assert len(found) == len(set(found)) == count
    last = written[-1]
    by_text = search(name, pb.Arm(text=f"text {last.removeprefix('item')}"), version=version, top_k=3)
    assert last in ids(await gateway.Search(by_text))


async def test_two_ingests_of_the_same_keys_leave_one_row_each(tmp_path: Path) -> None:
    with one_process(tmp_path) as suite:
        async with suite.gateway() as gateway:
            name = (await make_collection(gateway, "things", own_space())).name
            keys = [f"item{number}" for number in range(300)]
            both = await asyncio.gather(
                *(
                    ingest(gateway, name, *[item(key, vectors={"own": vector(1, who)}) for key in keys])
                    for who in (1, 2)
                )
            )
            assert [outcomes(answers) for answers in both] == [["written"] * 300] * 2
            assert (await gateway.CountItems(pb.CountItemsRequest(collection=name))).count == 300
            lookups = (await gateway.GetItems(pb.GetItemsRequest(collection=name, ids=keys))).lookups
            assert [(lookup.item.id, lookup.item.revision) for lookup in lookups] == [(key, 2) for key in keys]
            version = (await gateway.GetCollection(pb.GetCollectionRequest(name=name))).collection.version
            arm = pb.Arm(vector=vector(1, 1), space="own")
            found = ids(await gateway.Search(search(name, arm, top_k=1000, version=version)))
            assert sorted(found) == sorted(keys)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    with four_processes(tmp_path_factory.mktemp("data"), GATEWAY_CACHE_SECONDS="0") as suite:
        yield suite


@pytest.fixture
async def gateway(processes: Suite) -> AsyncIterator["pb_grpc.GatewayServiceAsyncStub"]:
    async with processes.gateway() as stub:
        yield stub


@pytest.fixture
async def things(gateway: "pb_grpc.GatewayServiceAsyncStub") -> AsyncIterator[str]:
    name = (await make_collection(gateway, "things", TEXT_SPACE, own_space())).name
    answers = await ingest(gateway, name, item("a", text="a thing", vectors={"own": vector(1, 2)}))
    await answered(gateway, search(name, pb.Arm(item_id="a"), version=versions(answers)))
    yield name
    await gateway.DropCollection(pb.DropCollectionRequest(name=name))


async def answered(gateway: "pb_grpc.GatewayServiceAsyncStub", request: pb.SearchRequest) -> pb.SearchResponse:
    """Return the response once the services have reconnected."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            try:
                return await gateway.Search(request, timeout=SECONDS)
            except grpc.aio.AioRpcError as error:
                assert error.code() is UNAVAILABLE  # noqa: PT017
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("down", ["embedder", "search", "store"])
async def test_a_service_that_is_down_is_named_and_used_again_once_it_is_back(
    processes: Suite, gateway: "pb_grpc.GatewayServiceAsyncStub", things: str, down: str
) -> None:
    arm = pb.Arm(text="a thing")
    await asyncio.to_thread(processes.kill, down)
    metadata = await refused(gateway.Search(search(things, arm)), UNAVAILABLE, "SERVICE_UNAVAILABLE")
    assert metadata["service"] == down
    change = pb.UpdateItemRequest(collection=things, id="a", text=f"a thing without {down}")
    if down != "search":
        metadata = await refused(gateway.UpdateItem(change, timeout=SECONDS), UNAVAILABLE, "SERVICE_UNAVAILABLE")
        assert metadata["service"] == down
    status = await gateway.GetStatus(pb.GetStatusRequest())
    assert [service.name for service in status.services if service.HasField("error")] == [down]
    await asyncio.to_thread(processes.start, down)
    assert ids(await answered(gateway, search(things, arm))) == ["a"]


async def test_an_ingest_waits_for_an_embedder_that_is_down(
    processes: Suite, gateway: "pb_grpc.GatewayServiceAsyncStub", things: str
) -> None:
    await asyncio.to_thread(processes.kill, "embedder")
    waiting = asyncio.create_task(ingest(gateway, things, item("b", text="waits"), item("c", text="waits too")))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    await asyncio.to_thread(processes.start, "embedder")
    assert outcomes(await waiting) == ["written", "written"]


async def test_calls_that_need_no_embedder_work_without_it(
    processes: Suite, gateway: "pb_grpc.GatewayServiceAsyncStub", things: str
) -> None:
    await asyncio.to_thread(processes.kill, "embedder")
    try:
        answers = await ingest(gateway, things, item("own", vectors={"own": vector(5, 6)}))
        assert outcomes(answers) == ["written"]
        arm = pb.Arm(vector=vector(5, 6), space="own")
        assert ids(await gateway.Search(search(things, arm, version=versions(answers), top_k=1))) == ["own"]
    finally:
        await asyncio.to_thread(processes.start, "embedder")


async def test_an_upload_the_store_refuses_while_it_is_sent_says_why(
    gateway: "pb_grpc.GatewayServiceAsyncStub",
) -> None:
    async def wrongly_named() -> AsyncIterator[pb.UploadMediaRequest]:
        yield pb.UploadMediaRequest(header=store_service_pb2.MediaHeader(sha256="abc"))
        for _ in range(20):
            yield pb.UploadMediaRequest(chunk=bytes(2**18))

    for _ in range(50):
        await refused(gateway.UploadMedia(wrongly_named(), timeout=SECONDS), INVALID, "ARGUMENT_INVALID")


async def test_a_cancelled_ingest_frees_its_slot(tmp_path: Path) -> None:
    with one_process(tmp_path, GATEWAY_MAX_INGESTS="1") as suite:
        async with suite.gateway() as gateway:
            name = (await make_collection(gateway, "things", own_space())).name
            items = [item(f"item{number}", vectors={"own": vector(1, number)}) for number in range(5000)]

            async def begin() -> Any:
                call = gateway.IngestItems(requests(name, items, pause_seconds=0.001), timeout=SECONDS)
                await anext(aiter(call))
                return call

            for _ in range(3):
                call = await until_works(begin, grpc.aio.AioRpcError)
                second = gateway.IngestItems(requests(name, items[:1]), timeout=SECONDS)
                await refused(second, grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
                call.cancel()
            after = await until_works(lambda: ingest(gateway, name, items[0]), grpc.aio.AioRpcError)
            assert outcomes(after) == ["written"]


async def test_a_taken_port_is_one_clear_line_and_no_traceback(tmp_path: Path) -> None:
    with one_process(tmp_path) as suite:
        second = await asyncio.to_thread(_second, suite.environment | {"STORE_DATA_DIR": str(tmp_path / "other")})
    assert second.returncode == 1
    assert "Traceback" not in second.stderr
    lines = [line for line in second.stderr.splitlines() if "medley cannot start" in line]
    assert len(lines) == 1
    assert any(address in lines[0] for address in suite.addresses.values())


async def test_addresses_are_printed_and_sigterm_stops_it_cleanly(tmp_path: Path) -> None:
    listen = {f"{service}_LISTEN": "127.0.0.1:0" for service in ("STORE", "EMBEDDER", "SEARCH", "GATEWAY")}
    process = command("services", {"STORE_DATA_DIR": str(tmp_path), **listen}, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        lines = [await asyncio.to_thread(process.stdout.readline) for _ in range(5)]
        assert [line.split()[0] for line in lines] == ["store", "embedder", "search", "gateway", "ready"]
        address = lines[3].split()[1]
        async with grpc.aio.insecure_channel(address) as channel:
            status = await pb_grpc.GatewayServiceStub(channel).GetStatus(pb.GetStatusRequest(), timeout=SECONDS)
        assert not any(service.HasField("error") for service in status.services)
    finally:
        process.terminate()
        assert await asyncio.to_thread(process.wait, START_SECONDS) == 0
        process.stdout.close()  # type: ignore[union-attr]  # checked above


async def test_running_calls_finish_after_sigterm(tmp_path: Path) -> None:
    with one_process(tmp_path) as suite:
        async with suite.gateway() as gateway:
            name = (await make_collection(gateway, "things", TEXT_SPACE)).name
            items = [item(f"item{number}", text=f"text {number}") for number in range(100)]
            stopping = asyncio.Event()

            async def sent() -> AsyncIterator[pb.IngestItemsRequest]:
                """Send half of the items, and the others once the services are to stop."""
                async for request in requests(name, items[:50]):
                    yield request
                await stopping.wait()
                for each in items[50:]:
                    yield pb.IngestItemsRequest(chunk=pb.IngestChunk(items=[each]))

            call = gateway.IngestItems(sent(), timeout=SECONDS)
            first = await anext(aiter(call))
            suite.processes["all"].terminate()
            stopping.set()
            assert outcomes([*first.items, *await answers(call)]) == ["written"] * 100


def _second(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    process = command("services", environment, stderr=subprocess.PIPE)
    _, stderr = process.communicate(timeout=HANG_SECONDS)
    return subprocess.CompletedProcess([], process.returncode, "", stderr)
