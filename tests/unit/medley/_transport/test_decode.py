from datetime import UTC, datetime

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from medley import NotFoundError
from medley._transport import decode
from medley.v1 import collection_pb2, item_pb2, search_service_pb2, vector_pb2
from medley.v1 import gateway_service_pb2 as pb


def test_a_collection_has_its_short_name_and_its_time_in_utc() -> None:
    space = collection_pb2.Space(
        name="clip",
        model="m",
        dimensions=2,
        metric=vector_pb2.METRIC_DOT_PRODUCT,
        sources=[collection_pb2.CONTENT_TYPE_IMAGE],
    )
    message = collection_pb2.Collection(
        name="collections/c", spaces=[space], version="a.1", create_time=Timestamp(seconds=1)
    )
    collection = decode.collection(message)
    assert (collection.name, collection.version) == ("c", "a.1")
    assert collection.create_time == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert (collection.spaces[0].metric, collection.spaces[0].sources) == ("dot_product", ("image",))


def test_what_an_item_does_not_have_is_none_or_empty() -> None:
    item = decode.item(item_pb2.Item(id="a"))
    assert (item.content_type, item.text, item.media, item.metadata, item.create_time) == (None,) * 5
    assert (dict(item.vectors), item.spaces) == ({}, ())


def test_what_an_item_has_is_read() -> None:
    vector = vector_pb2.Vector(float32_le=np.array([1, 2], "<f4").tobytes())
    message = item_pb2.Item(
        id="a",
        text="",
        media=item_pb2.Media(sha256="f", data=b""),
        metadata_json='{"a": [1]}',
        vectors={"own": vector},
        spaces=["own"],
        revision=3,
    )
    item = decode.item(message)
    assert (item.text, item.metadata, item.revision, item.spaces) == ("", {"a": [1]}, 3, ("own",))
    assert item.media is not None
    assert item.media.data == b""
    assert item.vectors["own"].tolist() == [1, 2]


def test_an_item_of_a_kind_unknown_to_this_client_still_reads() -> None:
    message = item_pb2.Item.FromString(item_pb2.Item(id="a").SerializeToString() + b"\x10\x63")
    assert decode.item(message).content_type is None


def test_a_result_says_committed_or_why_not() -> None:
    written = item_pb2.ItemWritten(id="a", revision=2, version="v.3")
    refusal = item_pb2.ItemResult(error=status_pb2.Status(code=5, message="gone"))
    answers = [
        pb.IngestedItem(id="a", result=item_pb2.ItemResult(written=written)),
        pb.IngestedItem(id="b", sequence=1, result=refusal),
    ]
    good, bad = decode.ingest_results(pb.IngestItemsResponse(items=answers))
    assert (good.ok, good.revision, good.version) == (True, 2, "v.3")
    assert (bad.ok, bad.sequence, str(bad.error), type(bad.error)) == (False, 1, "gone", NotFoundError)


def test_a_lookup_is_an_item_or_an_error() -> None:
    found = decode.lookup("a", item_pb2.ItemLookup(item=item_pb2.Item(id="a")))
    missing = decode.lookup("b", item_pb2.ItemLookup(error=status_pb2.Status(code=5)))
    assert found.item is not None
    assert found.error is None
    assert (missing.id, missing.item, type(missing.error)) == ("b", None, NotFoundError)


def test_a_ranking_explains_itself() -> None:
    message = pb.SearchResponse(
        hits=[pb.Hit(rank=1, score=0.5, arms=[pb.ArmScore(arm=0, rank=2, score=0.25)], item=item_pb2.Item(id="a"))],
        arms=[pb.ArmReport(space="clip", metric=vector_pb2.METRIC_COSINE, mode=search_service_pb2.SEARCH_MODE_EXACT)],
        version="v.1",
    )
    result = decode.search_result(message)
    (hit,) = result
    assert (len(result), hit.id, hit.rank, hit.arms[0].rank, hit.arms[0].score) == (1, "a", 1, 2, 0.25)
    assert (result.arms[0].metric, result.arms[0].mode, result.version) == ("cosine", "exact", "v.1")


def test_a_status_says_which_service_is_down() -> None:
    services = [pb.ServiceStatus(name="store"), pb.ServiceStatus(name="search", error=status_pb2.Status(code=14))]
    status = decode.status(pb.GetStatusResponse(services=services))
    assert [(service.name, service.error is None) for service in status.services] == [
        ("store", True),
        ("search", False),
    ]
