"""Requests that the gateway refuses: each has a status code and a reason, and stores nothing."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from io import BytesIO

import grpc
import numpy as np
import pytest
from PIL import Image

from medley.v1 import collection_pb2, filter_pb2, item_pb2, store_service_pb2, vector_pb2
from medley.v1 import gateway_service_pb2 as pb
from medley.v1 import gateway_service_pb2_grpc as pb_grpc
from tests.integration.conversation import (
    SECONDS,
    ingest,
    item,
    make_collection,
    outcomes,
    own_space,
    picture,
    refused,
    requests,
    search,
    vector,
)
from tests.integration.suite import Suite, one_process

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
MANY_PIXELS = 9000


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    with one_process(tmp_path_factory.mktemp("data"), GATEWAY_MAX_SEARCHES="1") as running:
        yield running


@pytest.fixture
async def gateway(suite: Suite) -> AsyncIterator["pb_grpc.GatewayServiceAsyncStub"]:
    async with suite.gateway() as stub:
        yield stub


@pytest.fixture(scope="module")
def things(suite: Suite) -> str:
    """A collection with one item, which no test of this module changes."""

    async def make() -> str:
        async with suite.gateway() as stub:
            return await with_an_item(stub, "things")

    return asyncio.run(make())


@pytest.fixture
async def scratch(gateway: "pb_grpc.GatewayServiceAsyncStub") -> AsyncIterator[str]:
    """A new collection with one item for each test."""
    name = await with_an_item(gateway, "scratch")
    yield name
    await gateway.DropCollection(pb.DropCollectionRequest(name=name))


async def with_an_item(gateway: "pb_grpc.GatewayServiceAsyncStub", name: str) -> str:
    spaces = [
        collection_pb2.Space(name="clip", model="medley-mini"),
        collection_pb2.Space(name="text", model="minilm"),
        own_space(),
    ]
    name = (await make_collection(gateway, name, *spaces)).name
    answers = await ingest(gateway, name, item("there", text="a thing", vectors={"own": vector(1, 2)}))
    assert outcomes(answers) == ["written"]
    return name


def huge_picture() -> bytes:
    """A small file of 81 million pixels."""
    buffer = BytesIO()
    Image.new("1", (MANY_PIXELS, MANY_PIXELS)).save(buffer, "PNG")
    return buffer.getvalue()


BAD_ITEMS = {
    "no id": (item("", text="x"), "ID_INVALID"),
    "an id with NUL": (item("a\0b", text="x"), "ID_INVALID"),
    "an id too long": (item("é" * 513, text="x"), "ID_INVALID"),
    "nothing": (item("bad"), "ITEM_EMPTY"),
    "an empty text": (item("bad", text=""), "TEXT_INVALID"),
    "a blank text": (item("bad", text=" \n"), "TEXT_INVALID"),
    "a text too long": (item("bad", text="x" * 100_001), "TEXT_INVALID"),
    "an empty file": (item("bad", picture=b""), "MEDIA_INVALID"),
    "media without a source": (item("bad", media=pb.MediaSource()), "MEDIA_INVALID"),
    "no picture": (item("bad", picture=b"<html>not found</html>"), "MEDIA_INVALID"),
    "a truncated picture": (item("bad", picture=picture(1, (200, 200))[:5000]), "MEDIA_INVALID"),
    "a picture over the pixel limit": (item("bad", picture=huge_picture()), "MEDIA_TOO_LARGE"),
    "media that are not there": (item("bad", media=pb.MediaSource(sha256="0" * 64)), "MEDIA_NOT_FOUND"),
    "metadata that are no JSON": (item("bad", text="x", metadata_json="{'a': 1}"), "METADATA_INVALID"),
    "metadata that are no object": (item("bad", text="x", metadata_json="[1]"), "METADATA_INVALID"),
    "metadata with NaN": (item("bad", text="x", metadata_json='{"a": NaN}'), "METADATA_INVALID"),
    "metadata too large": (item("bad", text="x", metadata_json='{"a": "' + "x" * 2**20 + '"}'), "METADATA_INVALID"),
    "metadata too deep": (item("bad", text="x", metadata_json='{"a":' * 40 + "1" + "}" * 40), "METADATA_INVALID"),
    "a vector of NaN": (item("bad", vectors={"own": vector(1, math.nan)}), "VECTOR_INVALID"),
    "an infinite vector": (item("bad", vectors={"own": vector(1, math.inf)}), "VECTOR_INVALID"),
    "a zero vector": (item("bad", vectors={"own": vector(0, 0)}), "VECTOR_INVALID"),
    "an empty vector": (item("bad", vectors={"own": vector_pb2.Vector()}), "VECTOR_INVALID"),
    "half a float": (item("bad", vectors={"own": vector_pb2.Vector(float32_le=b"1234567")}), "VECTOR_INVALID"),
    "a vector too long": (item("bad", vectors={"own": vector(1, 2, 3)}), "DIMENSION_MISMATCH"),
    "a vector in no space": (item("bad", vectors={"none": vector(1, 2)}), "SPACE_NOT_FOUND"),
    "a vector where a model is": (item("bad", vectors={"text": vector(1, 2)}), "VECTOR_NOT_ACCEPTED"),
}


@pytest.mark.parametrize("name", BAD_ITEMS)
async def test_a_bad_item_is_refused_in_its_place(
    gateway: "pb_grpc.GatewayServiceAsyncStub", scratch: str, name: str
) -> None:
    bad, reason = BAD_ITEMS[name]
    answers = await ingest(gateway, scratch, item("before", text="one"), bad, item("after", text="two"))
    assert outcomes(answers) == ["written", reason, "written"]
    assert [answer.id for answer in answers] == ["before", bad.id, "after"]
    listed = await gateway.ListItems(pb.ListItemsRequest(collection=scratch))
    assert sorted(each.id for each in listed.items) == ["after", "before", "there"]


async def test_many_bad_items_among_good_ones_are_answered_in_order(
    gateway: "pb_grpc.GatewayServiceAsyncStub", scratch: str
) -> None:
    items, expected = [], []
    for number in range(300):
        bad = number % 3 == 1
        items.append(item(f"item{number}", text="" if bad else f"text {number}"))
        expected.append("TEXT_INVALID" if bad else "written")
    answers = await ingest(gateway, scratch, *items)
    assert outcomes(answers) == expected
    assert [answer.sequence for answer in answers] == list(range(300))


OWN_ARM = pb.Arm(vector=vector(1, 2), space="own")
THINGS = "collections/things"
BAD_SEARCHES = {
    "no such collection": (search("collections/none", OWN_ARM), NOT_FOUND, "COLLECTION_NOT_FOUND"),
    "a bad collection name": (search("things", OWN_ARM), INVALID, "ARGUMENT_INVALID"),
    "no such space": (search(THINGS, pb.Arm(text="x", space="none")), NOT_FOUND, "SPACE_NOT_FOUND"),
    "no such item": (search(THINGS, pb.Arm(item_id="none")), NOT_FOUND, "ITEM_NOT_FOUND"),
    "an id that cannot be": (search(THINGS, pb.Arm(item_id="a\0b")), INVALID, "ID_INVALID"),
    "an item without a vector": (search(THINGS, pb.Arm(item_id="there", space="clip")), INVALID, "ITEM_HAS_NO_VECTOR"),
    "no arm": (search(THINGS), INVALID, "ARGUMENT_INVALID"),
    "too many arms": (search(THINGS, *[OWN_ARM] * 17), INVALID, "ARGUMENT_INVALID"),
    "an arm without a query": (search(THINGS, pb.Arm(space="own")), INVALID, "ARGUMENT_INVALID"),
    "a negative weight": (search(THINGS, pb.Arm(text="x", weight=-1)), INVALID, "ARGUMENT_INVALID"),
    "a weight of NaN": (search(THINGS, pb.Arm(text="x", weight=math.nan)), INVALID, "ARGUMENT_INVALID"),
    "a negative top_k": (search(THINGS, OWN_ARM, top_k=-1), INVALID, "ARGUMENT_INVALID"),
    "a top_k over 10,000": (search(THINGS, OWN_ARM, top_k=10_001), INVALID, "ARGUMENT_INVALID"),
    "a depth below top_k": (search(THINGS, OWN_ARM, top_k=10, depth=9), INVALID, "ARGUMENT_INVALID"),
    "a depth over 10,000": (search(THINGS, OWN_ARM, depth=10_001), INVALID, "ARGUMENT_INVALID"),
    "an unknown field": (search(THINGS, OWN_ARM, fields=[99]), INVALID, "ARGUMENT_INVALID"),
    "an empty text": (search(THINGS, pb.Arm(text="")), INVALID, "TEXT_INVALID"),
    "a corrupt picture": (search(THINGS, pb.Arm(image=b"no picture")), INVALID, "MEDIA_INVALID"),
    "an empty picture": (search(THINGS, pb.Arm(image=b"")), INVALID, "MEDIA_INVALID"),
    "a picture for texts": (search(THINGS, pb.Arm(image=picture(1), space="text")), INVALID, "INPUT_NOT_SUPPORTED"),
    "a text for own vectors": (search(THINGS, pb.Arm(text="x", space="own")), INVALID, "INPUT_NOT_SUPPORTED"),
    "a vector without a space": (search(THINGS, pb.Arm(vector=vector(1, 2))), INVALID, "ARGUMENT_INVALID"),
    "a vector too short": (search(THINGS, pb.Arm(vector=vector(1), space="own")), INVALID, "DIMENSION_MISMATCH"),
    "a vector of NaN": (search(THINGS, pb.Arm(vector=vector(1, math.nan), space="own")), INVALID, "VECTOR_INVALID"),
    "a zero vector": (search(THINGS, pb.Arm(vector=vector(0, 0), space="own")), INVALID, "VECTOR_INVALID"),
    "an unknown operator": (search(THINGS, OWN_ARM, where='{"a": {"$near": 1}}'), INVALID, "FILTER_INVALID"),
    "a filter that is no JSON": (search(THINGS, OWN_ARM, where="a = 1"), INVALID, "FILTER_INVALID"),
    "a version that cannot be read": (search(THINGS, OWN_ARM, version="yesterday"), INVALID, "TOKEN_INVALID"),
    "a version of another collection": (
        search(THINGS, OWN_ARM, version="0000.1"),
        grpc.StatusCode.FAILED_PRECONDITION,
        "VERSION_UNKNOWN",
    ),
    "a k of zero": (
        search(THINGS, OWN_ARM, fusion=pb.Fusion(rrf=pb.ReciprocalRankFusion(k=0))),
        INVALID,
        "ARGUMENT_INVALID",
    ),
}


@pytest.mark.parametrize("name", BAD_SEARCHES)
async def test_a_bad_search_is_refused(gateway: "pb_grpc.GatewayServiceAsyncStub", things: str, name: str) -> None:
    request, code, reason = BAD_SEARCHES[name]
    assert things == THINGS
    await refused(gateway.Search(request), code, reason)


OTHER = "collections/other"
BAD_COLLECTIONS = {
    "a bad name": (collection_pb2.Collection(name="collections/Other"), INVALID, "ARGUMENT_INVALID"),
    "two spaces of a name": (
        collection_pb2.Collection(name=OTHER, spaces=[own_space(), own_space()]),
        INVALID,
        "ARGUMENT_INVALID",
    ),
    "seventeen spaces": (
        collection_pb2.Collection(name=OTHER, spaces=[own_space(f"s{number}") for number in range(17)]),
        INVALID,
        "ARGUMENT_INVALID",
    ),
    "no dimensions": (collection_pb2.Collection(name=OTHER, spaces=[own_space("a", 0)]), INVALID, "ARGUMENT_INVALID"),
    "4097 dimensions": (
        collection_pb2.Collection(name=OTHER, spaces=[own_space("a", 4097)]),
        INVALID,
        "ARGUMENT_INVALID",
    ),
    "no such model": (
        collection_pb2.Collection(name=OTHER, spaces=[collection_pb2.Space(name="a", model="none")]),
        NOT_FOUND,
        "MODEL_NOT_FOUND",
    ),
    "dimensions that are not the model's": (
        collection_pb2.Collection(name=OTHER, spaces=[collection_pb2.Space(name="a", model="minilm", dimensions=3)]),
        INVALID,
        "ARGUMENT_INVALID",
    ),
    "a source the model does not take": (
        collection_pb2.Collection(
            name=OTHER,
            spaces=[
                collection_pb2.Space(name="a", model="minilm", sources=[collection_pb2.ContentType.CONTENT_TYPE_IMAGE])
            ],
        ),
        INVALID,
        "INPUT_NOT_SUPPORTED",
    ),
    "the name of another": (
        collection_pb2.Collection(name=THINGS, spaces=[own_space("a")]),
        grpc.StatusCode.ALREADY_EXISTS,
        "COLLECTION_EXISTS",
    ),
}


@pytest.mark.parametrize("name", BAD_COLLECTIONS)
async def test_a_bad_collection_is_refused(gateway: "pb_grpc.GatewayServiceAsyncStub", things: str, name: str) -> None:
    collection, code, reason = BAD_COLLECTIONS[name]
    await refused(gateway.CreateCollection(pb.CreateCollectionRequest(collection=collection)), code, reason)
    listed = await gateway.ListCollections(pb.ListCollectionsRequest())
    assert [each.name for each in listed.collections] == [things]


BAD_UPDATES = {
    "no such item": (pb.UpdateItemRequest(id="none", text="x"), NOT_FOUND, "ITEM_NOT_FOUND"),
    "a blank text": (pb.UpdateItemRequest(id="there", text="  "), INVALID, "TEXT_INVALID"),
    "a corrupt picture": (
        pb.UpdateItemRequest(id="there", media=pb.MediaSource(data=b"no picture")),
        INVALID,
        "MEDIA_INVALID",
    ),
    "media and their removal": (
        pb.UpdateItemRequest(id="there", media=pb.MediaSource(data=picture(1)), remove_media=True),
        INVALID,
        "ARGUMENT_INVALID",
    ),
    "metadata without a change": (
        pb.UpdateItemRequest(id="there", metadata=store_service_pb2.MetadataUpdate()),
        INVALID,
        "ARGUMENT_INVALID",
    ),
    "metadata that are no object": (
        pb.UpdateItemRequest(id="there", metadata=store_service_pb2.MetadataUpdate(merge_json="3")),
        INVALID,
        "METADATA_INVALID",
    ),
    "an old revision": (
        pb.UpdateItemRequest(id="there", text="x", expected_revision=7),
        grpc.StatusCode.ABORTED,
        "REVISION_MISMATCH",
    ),
    "a vector where a model is": (
        pb.UpdateItemRequest(id="there", vectors={"text": vector(1)}),
        INVALID,
        "VECTOR_NOT_ACCEPTED",
    ),
}


@pytest.mark.parametrize("name", BAD_UPDATES)
async def test_a_bad_update_changes_nothing(gateway: "pb_grpc.GatewayServiceAsyncStub", things: str, name: str) -> None:
    change, code, reason = BAD_UPDATES[name]
    request = pb.UpdateItemRequest()
    request.CopyFrom(change)
    request.collection = things
    await refused(gateway.UpdateItem(request), code, reason)
    (lookup,) = (await gateway.GetItems(pb.GetItemsRequest(collection=things, ids=["there"]))).lookups
    assert (lookup.item.revision, lookup.item.text) == (1, "a thing")


async def test_deleting_by_an_empty_filter_deletes_nothing(
    gateway: "pb_grpc.GatewayServiceAsyncStub", things: str
) -> None:
    request = pb.DeleteItemsRequest(collection=things, where=filter_pb2.Where())
    await refused(gateway.DeleteItems(request), INVALID, "ARGUMENT_INVALID")
    assert (await gateway.CountItems(pb.CountItemsRequest(collection=things))).count == 1


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ({"page_size": -1}, "ARGUMENT_INVALID"),
        ({"page_size": 1001}, "ARGUMENT_INVALID"),
        ({"page_token": "?"}, "TOKEN"),
    ],
)
async def test_bad_pages_are_refused(
    gateway: "pb_grpc.GatewayServiceAsyncStub", things: str, page: dict[str, object], reason: str
) -> None:
    reason = "TOKEN_INVALID" if reason == "TOKEN" else reason
    await refused(gateway.ListItems(pb.ListItemsRequest(collection=things, **page)), INVALID, reason)  # type: ignore[arg-type]  # a table of options
    await refused(gateway.ListCollections(pb.ListCollectionsRequest(**page)), INVALID, reason)  # type: ignore[arg-type]  # likewise


async def test_an_upload_that_ends_early_is_refused(gateway: "pb_grpc.GatewayServiceAsyncStub") -> None:
    async def parts() -> AsyncIterator[pb.UploadMediaRequest]:
        yield pb.UploadMediaRequest(header=store_service_pb2.MediaHeader(size_bytes=100))
        yield pb.UploadMediaRequest(chunk=b"only this")

    metadata = await refused(gateway.UploadMedia(parts()), INVALID, "UPLOAD_INCOMPLETE")
    assert metadata == {"expected": "100 bytes", "actual": "9 bytes"}


async def test_an_upload_without_a_header_is_refused(gateway: "pb_grpc.GatewayServiceAsyncStub") -> None:
    async def parts() -> AsyncIterator[pb.UploadMediaRequest]:
        yield pb.UploadMediaRequest(chunk=b"only this")

    await refused(gateway.UploadMedia(parts()), INVALID, "ARGUMENT_INVALID")


async def test_media_in_a_folder_have_no_url(gateway: "pb_grpc.GatewayServiceAsyncStub") -> None:
    call = gateway.GetMediaUrl(pb.GetMediaUrlRequest(sha256="00" * 32))
    await refused(call, grpc.StatusCode.FAILED_PRECONDITION, "MEDIA_WITHOUT_URL")


async def test_media_that_are_not_there_cannot_be_downloaded(gateway: "pb_grpc.GatewayServiceAsyncStub") -> None:
    await refused(gateway.DownloadMedia(pb.DownloadMediaRequest(sha256="0" * 64)), NOT_FOUND, "MEDIA_NOT_FOUND")


async def test_ingest_begins_with_its_target(gateway: "pb_grpc.GatewayServiceAsyncStub", things: str) -> None:
    async def no_target() -> AsyncIterator[pb.IngestItemsRequest]:
        yield pb.IngestItemsRequest(chunk=pb.IngestChunk(items=[item("a", text="x")]))

    async def nothing() -> AsyncIterator[pb.IngestItemsRequest]:
        for request in list[pb.IngestItemsRequest]():
            yield request

    await refused(gateway.IngestItems(no_target(), timeout=SECONDS), INVALID, "ARGUMENT_INVALID")
    await refused(gateway.IngestItems(nothing(), timeout=SECONDS), INVALID, "ARGUMENT_INVALID")
    unknown = gateway.IngestItems(requests("collections/none", [item("a", text="x")]), timeout=SECONDS)
    await refused(unknown, NOT_FOUND, "COLLECTION_NOT_FOUND")


async def test_a_second_target_ends_the_stream_after_what_came_before_is_answered(
    gateway: "pb_grpc.GatewayServiceAsyncStub", scratch: str
) -> None:
    async def two_targets() -> AsyncIterator[pb.IngestItemsRequest]:
        yield pb.IngestItemsRequest(target=pb.IngestTarget(collection=scratch))
        yield pb.IngestItemsRequest(chunk=pb.IngestChunk(items=[item("a", text="x")]))
        yield pb.IngestItemsRequest(target=pb.IngestTarget(collection=scratch))

    answers = gateway.IngestItems(two_targets(), timeout=SECONDS)
    received: list[pb.IngestedItem] = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for answer in answers:
            received.extend(answer.items)
    assert caught.value.code() is INVALID
    assert outcomes(received) == ["written"]


async def test_a_message_over_the_size_limit_is_refused_and_the_gateway_goes_on(
    gateway: "pb_grpc.GatewayServiceAsyncStub", things: str
) -> None:
    too_large = search(things, pb.Arm(image=bytes(65 * 2**20)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.Search(too_large)
    assert caught.value.code() is EXHAUSTED
    assert (await gateway.CountItems(pb.CountItemsRequest(collection=things))).count == 1


async def test_one_search_too_many_is_refused_at_once(gateway: "pb_grpc.GatewayServiceAsyncStub", things: str) -> None:
    vectors = np.random.default_rng(0).standard_normal((16, 2)).astype("<f4")
    arms = [pb.Arm(vector=vector_pb2.Vector(float32_le=each.tobytes()), space="own") for each in vectors]
    calls = [gateway.Search(search(things, *arms, top_k=1, fields=[item_pb2.ITEM_FIELD_TEXT])) for _ in range(50)]
    outcomes_ = await asyncio.gather(*calls, return_exceptions=True)
    overloaded = [each for each in outcomes_ if isinstance(each, grpc.aio.AioRpcError)]
    assert overloaded
    assert {each.code() for each in overloaded} == {EXHAUSTED}
    assert len(overloaded) < 50
