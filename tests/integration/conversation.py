"""What the gateway's tests say to it."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from io import BytesIO
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from PIL import Image

from medley._transport.aio_status import server_status
from medley.v1 import collection_pb2, filter_pb2, item_pb2, vector_pb2
from medley.v1 import gateway_service_pb2 as pb
from medley.v1 import gateway_service_pb2_grpc as pb_grpc

SECONDS = 60.0


def picture(number: int, size: tuple[int, int] = (48, 32)) -> bytes:
    """A PNG of noise that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def vector(*components: float) -> vector_pb2.Vector:
    return vector_pb2.Vector(float32_le=np.array(components, "<f4").tobytes())


def item(item_id: str, **parts: Any) -> pb.IngestItem:
    if "picture" in parts:
        parts["media"] = pb.MediaSource(data=parts.pop("picture"))
    return pb.IngestItem(id=item_id, **parts)


async def requests(
    collection: str, items: Iterable[pb.IngestItem], pause_seconds: float = 0
) -> AsyncIterator[pb.IngestItemsRequest]:
    yield pb.IngestItemsRequest(target=pb.IngestTarget(collection=collection))
    for each in items:
        yield pb.IngestItemsRequest(chunk=pb.IngestChunk(items=[each]))
        if pause_seconds:
            await asyncio.sleep(pause_seconds)


async def ingest(
    gateway: "pb_grpc.GatewayServiceAsyncStub", collection: str, *items: pb.IngestItem
) -> list[pb.IngestedItem]:
    return await answers(gateway.IngestItems(requests(collection, items), timeout=SECONDS))


async def answers(responses: AsyncIterable[pb.IngestItemsResponse]) -> list[pb.IngestedItem]:
    return [answer async for response in responses for answer in response.items]


async def make_collection(
    gateway: "pb_grpc.GatewayServiceAsyncStub", name: str, *spaces: collection_pb2.Space
) -> collection_pb2.Collection:
    wanted = collection_pb2.Collection(name=f"collections/{name}", spaces=spaces)
    return (await gateway.CreateCollection(pb.CreateCollectionRequest(collection=wanted), timeout=SECONDS)).collection


def own_space(name: str = "own", dimensions: int = 2) -> collection_pb2.Space:
    return collection_pb2.Space(name=name, dimensions=dimensions)


def search(collection: str, *arms: pb.Arm, where: str = "", **options: Any) -> pb.SearchRequest:
    if where:
        options["where"] = filter_pb2.Where(json=where)
    return pb.SearchRequest(collection=collection, arms=arms, **options)


def ids(answer: pb.SearchResponse) -> list[str]:
    return [hit.item.id for hit in answer.hits]


def versions(answers: Sequence[pb.IngestedItem]) -> str:
    """Return the version token of the last written item."""
    return [answer.result.written.version for answer in answers if answer.result.HasField("written")][-1]


def outcomes(answers: Sequence[pb.IngestedItem]) -> list[str]:
    """Return "written" or the reason of each answer."""
    return [outcome(answer.result) for answer in answers]


def outcome(result: item_pb2.ItemResult) -> str:
    return "written" if result.HasField("written") else reason_of(result.error)


def reason_of(status: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details), status
    assert info.domain == "medley"
    return str(info.reason)


async def refused(call: Any, code: grpc.StatusCode, reason: str) -> dict[str, str]:
    """Check that `call` fails with the code and the reason; return the metadata of its ErrorInfo."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with server_status(call):
            await call if not hasattr(call, "__aiter__") else [_ async for _ in call]
    assert caught.value.code() is code, caught.value
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # takes what an aio error has as well
    info = error_details_pb2.ErrorInfo()
    assert status is not None, caught.value
    assert any(detail.Unpack(info) for detail in status.details)
    assert info.reason == reason
    return dict(info.metadata)
