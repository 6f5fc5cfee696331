"""Both clients against a server that answers as each test says."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import grpc
import pytest

import medley
from medley import Client, NewItem
from medley.v1 import collection_pb2, item_pb2
from medley.v1 import gateway_service_pb2 as pb
from services.common.errors import (
    CollectionNotFoundError,
    ServiceUnavailableError,
    VersionUnknownError,
)
from tests.unit.medley.scripted_gateway import AioClient, Behaviour, ScriptedGateway, serving
from tests.waiting import HANG_SECONDS

FOUND = pb.SearchResponse(version="v.1")
GONE = "127.0.0.1:1"


@pytest.fixture(params=[Client, AioClient], ids=["sync", "aio"])
def connect(request: pytest.FixtureRequest) -> Any:
    return request.param


def failing(times: int, answer: Any) -> Behaviour:
    """Fail with UNAVAILABLE so many times, then answer."""
    left = [times]

    def behaviour(request: Any, context: grpc.ServicerContext) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise ServiceUnavailableError("store")
        return answer

    return behaviour


def answering(requests: Iterator[pb.IngestItemsRequest], context: grpc.ServicerContext) -> Iterator[Any]:
    next(requests)
    for sequence, item in enumerate(sent(requests)):
        yield pb.IngestItemsResponse(items=[answer_to(sequence, item)])


def sent(requests: Iterator[pb.IngestItemsRequest]) -> Iterator[pb.IngestItem]:
    for request in requests:
        yield from request.chunk.items


def answer_to(sequence: int, item: pb.IngestItem) -> pb.IngestedItem:
    written = item_pb2.ItemWritten(id=item.id, revision=1, version=f"v.{sequence + 1}")
    return pb.IngestedItem(id=item.id, sequence=sequence, result=item_pb2.ItemResult(written=written))


def items(count: int) -> Iterator[NewItem]:
    return (NewItem(str(number), text="t") for number in range(count))


def test_a_read_is_tried_again_while_the_server_is_unavailable(connect: Any) -> None:
    gateway = ScriptedGateway(Search=failing(2, FOUND))
    with serving(gateway) as server, connect(server) as client:
        assert len(client.search("c", text="t")) == 0
    assert len(gateway.calls) == 3


def test_a_read_fails_with_the_servers_reason_after_four_tries(connect: Any) -> None:
    gateway = ScriptedGateway(Search=failing(9, FOUND))
    with (
        serving(gateway) as server,
        connect(server) as client,
        pytest.raises(medley.UnavailableError, match="store") as caught,
    ):
        client.search("c", text="t")
    assert caught.value.reason == "SERVICE_UNAVAILABLE"
    assert len(gateway.calls) == 4


def test_a_picture_over_grpcs_usual_retry_buffer_is_tried_again(connect: Any) -> None:
    gateway = ScriptedGateway(Search=failing(1, FOUND))
    with serving(gateway) as server, connect(server) as client:
        client.search("c", image=bytes(2**20))
    assert len(gateway.calls) == 2


def test_an_update_is_not_tried_again(connect: Any) -> None:
    gateway = ScriptedGateway(UpdateItem=failing(1, pb.UpdateItemResponse()))
    with serving(gateway) as server, connect(server) as client, pytest.raises(medley.UnavailableError):
        client.update("c", "a", text="t")
    assert len(gateway.calls) == 1


def test_no_server_is_an_error(connect: Any) -> None:
    with connect(GONE) as client, pytest.raises(medley.UnavailableError) as caught:
        client.collection("c")
    assert caught.value.reason == "SERVICE_UNAVAILABLE"


def test_a_call_ends_at_its_deadline(connect: Any) -> None:
    def slow(request: Any, context: grpc.ServicerContext) -> Any:
        time.sleep(0.5)
        return pb.GetCollectionResponse()

    with serving(ScriptedGateway(GetCollection=slow)) as server, connect(server, timeout=0.1) as client:
        with pytest.raises(medley.DeadlineError) as caught:
            client.collection("c")
        assert caught.value.reason == "DEADLINE_EXCEEDED"
        assert client.collection("c", timeout=5).name == ""


def test_a_message_over_the_limit_says_so(connect: Any) -> None:
    gateway = ScriptedGateway(Search=failing(0, FOUND))
    with (
        serving(gateway, max_message_bytes=1000) as server,
        connect(server) as client,
        pytest.raises(medley.OverloadedError) as caught,
    ):
        client.search("c", image=bytes(2000))
    assert caught.value.reason == "MESSAGE_TOO_LARGE"


def test_a_url_is_asked_for_with_its_time_and_type(connect: Any) -> None:
    def url(request: pb.GetMediaUrlRequest, context: Any) -> pb.GetMediaUrlResponse:
        return pb.GetMediaUrlResponse(url=f"{request.sha256}?{request.expires_seconds}&{request.mime_type}")

    with serving(ScriptedGateway(GetMediaUrl=url)) as server, connect(server) as client:
        assert client.media_url("ab", seconds=60, mime_type="image/png") == "ab?60&image/png"


def test_pages_are_read_on_demand_to_the_end(connect: Any) -> None:
    def page(request: pb.ListCollectionsRequest, context: Any) -> pb.ListCollectionsResponse:
        number = int(request.page_token or 0)
        names = [collection_pb2.Collection(name=f"collections/c{number + offset}") for offset in range(2)]
        return pb.ListCollectionsResponse(collections=names, next_page_token=str(number + 2) if number < 4 else "")

    gateway = ScriptedGateway(ListCollections=page)
    with serving(gateway) as server, connect(server) as client:
        listed = client.collections(page_size=2)
        assert next(listed).name == "c0"
        assert len(gateway.calls) == 1
        assert [collection.name for collection in listed] == ["c1", "c2", "c3", "c4", "c5"]


def test_a_search_carries_the_token_of_what_was_written(connect: Any) -> None:
    asked: list[str] = []

    def search(request: pb.SearchRequest, context: Any) -> pb.SearchResponse:
        asked.append(request.version)
        return pb.SearchResponse(version="v.9")

    with serving(ScriptedGateway(IngestItems=answering, Search=search)) as server, connect(server) as client:
        client.search("c", text="t", version="")
        client.search("c", text="t")
        list(client.ingest("other", items(3)))
        client.search("other", text="t")
        client.search("collections/other", text="t", version="v.1")
    assert asked == ["", "v.9", "v.3", "v.1"]


def unknown_version(request: pb.SearchRequest, context: Any) -> pb.SearchResponse:
    if request.version:
        raise VersionUnknownError(request.collection, request.version)
    return FOUND


def test_a_token_of_a_collection_since_dropped_is_forgotten(connect: Any) -> None:
    gateway = ScriptedGateway(IngestItems=answering, Search=unknown_version)
    with serving(gateway) as server, connect(server) as client:
        list(client.ingest("c", items(1)))
        assert client.search("c", text="t").version == "v.1"
    assert gateway.calls.count("Search") == 2


def test_a_token_the_caller_chose_is_not_forgotten(connect: Any) -> None:
    with (
        serving(ScriptedGateway(Search=unknown_version)) as server,
        connect(server) as client,
        pytest.raises(medley.PreconditionError) as caught,
    ):
        client.search("c", text="t", version="x.1")
    assert caught.value.reason == "VERSION_UNKNOWN"


def test_each_item_is_answered_in_order(connect: Any) -> None:
    with serving(ScriptedGateway(IngestItems=answering)) as server, connect(server) as client:
        results = list(client.ingest("c", items(600)))
    assert [(result.id, result.sequence) for result in results] == [(str(n), n) for n in range(600)]
    assert all(result.ok for result in results)


def test_an_ingest_looks_a_bounded_way_ahead(connect: Any) -> None:
    drawn: list[int] = []

    def counted() -> Iterator[NewItem]:
        for number, item in enumerate(items(3000)):
            drawn.append(number)
            yield item

    allowed = threading.Semaphore(0)

    def slow(requests: Iterator[pb.IngestItemsRequest], context: Any) -> Iterator[Any]:
        for answer in answering(requests, context):
            allowed.acquire(timeout=10)
            yield answer

    with serving(ScriptedGateway(IngestItems=slow)) as server, connect(server) as client:
        allowed.release()
        results = client.ingest("c", counted())
        next(results)
        time.sleep(0.3)
        assert len(drawn) <= 1 + 1024 + 1
        allowed.release(3000)
        assert len(list(results)) == 2999


def test_leaving_an_ingest_early_ends_it(connect: Any) -> None:
    ended = threading.Event()

    def noticing(requests: Iterator[pb.IngestItemsRequest], context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(ended.set)
        yield from answering(requests, context)

    closed = threading.Event()

    def endless() -> Iterator[NewItem]:
        try:
            while True:
                yield NewItem("a", text="t")
        finally:
            closed.set()

    with serving(ScriptedGateway(IngestItems=noticing)) as server, connect(server) as client:
        results = client.ingest("c", endless())
        next(results)
        results.close()
        assert ended.wait(HANG_SECONDS)
        client.status if connect is Client else client._runner.run(_breath())
        assert closed.wait(HANG_SECONDS)


async def _breath() -> None:
    import asyncio

    await asyncio.sleep(0.05)


def test_what_the_source_raises_comes_after_the_answers(connect: Any) -> None:
    def broken() -> Iterator[NewItem]:
        yield from items(3)
        raise LookupError("no more")

    answered = []
    with (
        serving(ScriptedGateway(IngestItems=answering)) as server,
        connect(server) as client,
        pytest.raises(LookupError, match="no more"),
    ):
        answered += client.ingest("c", broken())
    assert len(answered) in (0, 3)


def test_an_unknown_collection_ends_an_ingest_of_any_length(connect: Any) -> None:
    def refusing(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        next(requests)
        raise CollectionNotFoundError("collections/c")
        yield

    with (
        serving(ScriptedGateway(IngestItems=refusing)) as server,
        connect(server) as client,
        pytest.raises(medley.NotFoundError) as caught,
    ):
        list(client.ingest("c", (NewItem("a", text="t") for _ in iter(int, 1))))
    assert caught.value.metadata == {"collection": "collections/c"}


def test_items_the_server_leaves_unanswered_are_an_error(connect: Any) -> None:
    def forgetful(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        received = list(sent(requests))
        yield pb.IngestItemsResponse(items=[answer_to(0, received[0])])

    with (
        serving(ScriptedGateway(IngestItems=forgetful)) as server,
        connect(server) as client,
        pytest.raises(medley.Error, match="2 items unanswered"),
    ):
        list(client.ingest("c", items(3)))


def test_media_come_back_whole_or_in_part(connect: Any) -> None:
    stored = {}

    def upload(requests: Iterator[pb.UploadMediaRequest], context: Any) -> pb.UploadMediaResponse:
        header = next(requests).header
        whole = b"".join(request.chunk for request in requests)
        assert header.size_bytes in (0, len(whole))
        sha256 = hashlib.sha256(whole).hexdigest()
        stored[sha256] = whole
        return pb.UploadMediaResponse(media=item_pb2.Media(sha256=sha256, size_bytes=len(whole)))

    def download(request: pb.DownloadMediaRequest, context: Any) -> Iterator[pb.DownloadMediaResponse]:
        whole = stored[request.sha256]
        end = request.range.offset + request.range.length if request.range.length else None
        for byte in whole[request.range.offset : end]:
            yield pb.DownloadMediaResponse(chunk=bytes([byte]))

    gateway = ScriptedGateway(UploadMedia=upload, DownloadMedia=download)
    with serving(gateway) as server, connect(server) as client:
        media = client.upload_media(b"abcdef")
        assert client.upload_media(iter([b"abc", b"", b"def"])) == media
        assert b"".join(client.download_media(media.sha256)) == b"abcdef"
        assert b"".join(client.download_media(media.sha256, offset=1, length=3)) == b"bcd"
        assert b"".join(client.download_media(media.sha256, offset=4)) == b"ef"
        stored[media.sha256] = b"abcdeX"
        with pytest.raises(medley.Error, match="came with the hash"):
            list(client.download_media(media.sha256))
        with pytest.raises(medley.InvalidError):
            list(client.download_media(media.sha256, length=0))


def test_an_upload_whose_source_fails_is_aborted(connect: Any) -> None:
    finished: list[bool] = []

    def upload(requests: Iterator[pb.UploadMediaRequest], context: Any) -> pb.UploadMediaResponse:
        list(requests)
        time.sleep(0.3)  # this server tells the end of the requests before it tells that the call was cancelled
        finished.append(context.is_active())
        return pb.UploadMediaResponse()

    def broken() -> Iterator[bytes]:
        yield b"abc"
        raise LookupError("lost")

    with (
        serving(ScriptedGateway(UploadMedia=upload)) as server,
        connect(server) as client,
        pytest.raises(LookupError, match="lost"),
    ):
        client.upload_media(broken())
    assert True not in finished


def test_the_token_goes_with_each_call(connect: Any) -> None:
    seen = []

    def status(request: Any, context: grpc.ServicerContext) -> pb.GetStatusResponse:
        seen.append(dict(context.invocation_metadata())["authorization"])
        return pb.GetStatusResponse()

    with serving(ScriptedGateway(GetStatus=status)) as server, connect(server, token="secret") as client:
        client.status()
    assert seen == ["Bearer secret"]


def test_a_url_is_refused_with_a_word_of_help() -> None:
    with pytest.raises(ValueError, match="write host:port"):
        Client("http://127.0.0.1:50050")


def test_many_ids_are_asked_for_in_several_calls(connect: Any) -> None:
    def lookups(request: pb.GetItemsRequest, context: Any) -> pb.GetItemsResponse:
        return pb.GetItemsResponse(lookups=[item_pb2.ItemLookup(item=item_pb2.Item(id=i)) for i in request.ids])

    gateway = ScriptedGateway(GetItems=lookups)
    with serving(gateway) as server, connect(server) as client:
        found = client.get_many("c", (str(number) for number in range(600)))
    assert [lookup.id for lookup in found] == [str(number) for number in range(600)]
    assert len(gateway.calls) == 3


def test_a_client_of_no_use_opens_no_connection(connect: Any) -> None:
    context: AbstractContextManager[Any] = connect(GONE)
    with context:
        pass
