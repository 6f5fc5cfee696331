"""What every server does, over a real port and by a direct call, with one behaviour for both."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from medley.v1 import store_service_pb2 as pb
from medley.v1 import store_service_pb2_grpc as pb_grpc
from services.common.deadlines import remaining_seconds
from services.common.errors import (
    CollectionNotFoundError,
    DeadlineError,
    NotFoundError,
    OverloadedError,
    ServiceUnavailableError,
)
from services.common.rpc.client import InProcessStub, call, stream
from services.common.rpc.server import run_server
from services.common.rpc.statuses import to_status
from services.common.settings import ServerSettings


class Moody(pb_grpc.StoreServiceServicer):
    """Answers by the name of the collection it is asked for."""

    async def GetTable(self, request: pb.GetTableRequest, context: object) -> pb.GetTableResponse:
        match request.name:
            case "slow":
                await asyncio.sleep(30)
            case "broken":
                raise ZeroDivisionError("secret detail")
            case "deadline":
                return pb.GetTableResponse(collection={"version": str(remaining_seconds(100))})  # type: ignore[arg-type]
            case "good":
                return pb.GetTableResponse()
        raise CollectionNotFoundError(request.name)

    async def ReadMedia(self, request: pb.ReadMediaRequest, context: object) -> AsyncIterator[pb.ReadMediaResponse]:
        yield pb.ReadMediaResponse(chunk=b"first")
        raise CollectionNotFoundError("late")


def moody() -> Moody:
    return Moody()  # type: ignore[abstract]  # two methods are enough here


@pytest.fixture
async def port() -> AsyncIterator[int]:
    settings = ServerSettings(listen="127.0.0.1:0", drain_seconds=0, max_calls=2, max_message_bytes=10_000)
    register = partial(pb_grpc.add_StoreServiceServicer_to_server, moody())
    async with run_server(settings, "medley.v1.StoreService", register) as port:
        yield port


@pytest.fixture
async def channel(port: int) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel


@pytest.fixture(params=["remote", "local"])
def stub(request: pytest.FixtureRequest, channel: grpc.aio.Channel) -> Any:
    return pb_grpc.StoreServiceStub(channel) if request.param == "remote" else InProcessStub(moody())


async def test_a_call_is_answered(stub: Any) -> None:
    assert await call("store", stub.GetTable, pb.GetTableRequest(name="good")) == pb.GetTableResponse()


async def test_health_can_be_watched(channel: grpc.aio.Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    watched = stub.Watch(health_pb2.HealthCheckRequest(service="medley.v1.StoreService"))
    assert (await watched.read()).status == health_pb2.HealthCheckResponse.SERVING
    watched.cancel()


async def test_an_error_keeps_kind_reason_and_values(stub: Any) -> None:
    with pytest.raises(NotFoundError, match="melons") as caught:
        await call("store", stub.GetTable, pb.GetTableRequest(name="melons"))
    assert caught.value.reason == "COLLECTION_NOT_FOUND"
    assert caught.value.metadata == {"collection": "melons"}


@pytest.mark.parametrize("name", ["z" * 3000, "z" * 9000, "é" * 4500, "\n" * 9000])
async def test_an_error_about_something_long_arrives_as_itself(channel: grpc.aio.Channel, name: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        await call("store", pb_grpc.StoreServiceStub(channel).GetTable, pb.GetTableRequest(name=name))
    assert caught.value.reason == "COLLECTION_NOT_FOUND"
    assert str(caught.value).startswith(f"no collection {name[:20]!r}"[:-1])
    assert str(caught.value).endswith("…")
    assert caught.value.metadata["collection"].startswith(name[:20])
    assert caught.value.metadata["collection"].endswith("…")


async def test_an_error_about_an_id_of_any_length_taken_is_whole(channel: grpc.aio.Channel) -> None:
    name = "é" * 512
    with pytest.raises(NotFoundError, match=name) as caught:
        await call("store", pb_grpc.StoreServiceStub(channel).GetTable, pb.GetTableRequest(name=name))
    assert caught.value.metadata == {"collection": name}


async def test_an_error_whose_headers_are_too_large_is_no_crash() -> None:
    sent = rpc_status.to_status(to_status(CollectionNotFoundError("z")))

    async def refused(request: object, **options: float) -> None:
        metadata = grpc.aio.Metadata(*sent.trailing_metadata)
        what = "received metadata size exceeds soft limit"
        raise grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), metadata, what)

    with pytest.raises(OverloadedError, match="received metadata size") as caught:
        await call("store", refused, pb.GetTableRequest())
    assert caught.value.reason == "MESSAGE_TOO_LARGE"


async def test_an_error_in_a_stream_comes_after_what_was_sent(stub: Any) -> None:
    seen = []
    with pytest.raises(NotFoundError):
        async for message in stream("store", stub.ReadMedia, pb.ReadMediaRequest()):
            seen.append(message.chunk)
    assert seen == [b"first"]


async def test_time_is_bounded(stub: Any) -> None:
    with pytest.raises(DeadlineError, match="store"):
        await call("store", stub.GetTable, pb.GetTableRequest(name="slow"), seconds=0.1)


async def test_the_other_side_sees_what_is_left_of_the_deadline(stub: Any) -> None:
    answer = await call("store", stub.GetTable, pb.GetTableRequest(name="deadline"), seconds=5)
    assert 3 < float(answer.collection.version) < 6


async def test_no_server_is_unavailable() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(ServiceUnavailableError, match="store"):
            await call("store", pb_grpc.StoreServiceStub(channel).GetTable, pb.GetTableRequest())


async def test_a_message_over_the_limit_says_so(channel: grpc.aio.Channel) -> None:
    with pytest.raises(OverloadedError) as caught:
        await call("store", pb_grpc.StoreServiceStub(channel).GetTable, pb.GetTableRequest(name="x" * 20_000))
    assert caught.value.reason == "MESSAGE_TOO_LARGE"


async def test_an_unexpected_error_leaks_nothing(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pb_grpc.StoreServiceStub(channel).GetTable(pb.GetTableRequest(name="broken"))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "internal error"


async def test_one_call_too_many_is_refused_at_once(channel: grpc.aio.Channel) -> None:
    stub = pb_grpc.StoreServiceStub(channel)
    running_calls = [asyncio.ensure_future(stub.GetTable(pb.GetTableRequest(name="slow"))) for _ in range(2)]
    await asyncio.sleep(0.2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetTable(pb.GetTableRequest(name="good"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert _info(caught.value).reason == "OVERLOADED"
    for running_call in running_calls:
        running_call.cancel()
    await asyncio.gather(*running_calls, return_exceptions=True)


async def test_health_is_serving(channel: grpc.aio.Channel) -> None:
    for service in ("", "medley.v1.StoreService"):
        answer = await health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]  # stubs lag
            health_pb2.HealthCheckRequest(service=service)
        )
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_names_the_service(channel: grpc.aio.Channel) -> None:
    requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]  # takes aio channels too
    call = stub.ServerReflectionInfo(requests)
    names = [service.name async for answer in call for service in answer.list_services_response.service]
    assert "medley.v1.StoreService" in names


def _info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    (detail,) = rpc_status.from_call(error).details  # type: ignore[arg-type]  # takes an aio error as well
    unpacked = error_details_pb2.ErrorInfo()
    assert detail.Unpack(unpacked)
    return unpacked
