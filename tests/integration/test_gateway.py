"""The gateway over real ports, in one process and in four: what goes in comes out."""

import json
from collections.abc import AsyncIterator, Iterator

import pytest

from medley.v1 import collection_pb2, filter_pb2, item_pb2, store_service_pb2
from medley.v1 import gateway_service_pb2 as pb
from medley.v1 import gateway_service_pb2_grpc as pb_grpc
from tests.integration.conversation import (
    ids,
    ingest,
    item,
    make_collection,
    outcomes,
    own_space,
    picture,
    search,
    vector,
    versions,
)
from tests.integration.suite import Suite, four_processes, one_process

SHAPES = {"one process": one_process, "four processes": four_processes}


@pytest.fixture(scope="module", params=SHAPES)
def suite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    with SHAPES[request.param](tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture
async def gateway(suite: Suite) -> AsyncIterator["pb_grpc.GatewayServiceAsyncStub"]:
    async with suite.gateway() as stub:
        yield stub


@pytest.fixture
async def shoes(gateway: "pb_grpc.GatewayServiceAsyncStub", request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A collection of three spaces with twelve items, dropped after the test."""
    spaces = [
        collection_pb2.Space(name="clip", model="medley-mini"),
        collection_pb2.Space(name="text", model="minilm"),
        own_space(),
    ]
    name = (await make_collection(gateway, "shoes", *spaces)).name
    items = [
        item(
            f"shoe{number:02}",
            text=f"shoe number {number} of leather",
            picture=picture(number),
            metadata_json=json.dumps({"number": number, "colour": "green" if number % 2 else "red"}),
            vectors={"own": vector(number + 1, 1)},
        )
        for number in range(12)
    ]
    answers = await ingest(gateway, name, *items)
    assert outcomes(answers) == ["written"] * 12
    yield name
    await gateway.DropCollection(pb.DropCollectionRequest(name=name))


async def newest(gateway: "pb_grpc.GatewayServiceAsyncStub", name: str) -> str:
    return (await gateway.GetCollection(pb.GetCollectionRequest(name=name))).collection.version


@pytest.mark.parametrize(
    "arm",
    [
        pb.Arm(text="shoe number 7 of leather", space="text"),
        pb.Arm(image=picture(7)),
        pb.Arm(vector=vector(8, 1), space="own"),
    ],
)
async def test_an_item_is_found_by_text_picture_and_vector(
    gateway: "pb_grpc.GatewayServiceAsyncStub", shoes: str, arm: pb.Arm
) -> None:
    answer = await gateway.Search(search(shoes, arm, top_k=3, version=await newest(gateway, shoes)))
    assert ids(answer)[0] == "shoe07"
    assert len(answer.hits) == 3
    assert [hit.rank for hit in answer.hits] == [1, 2, 3]
    assert answer.hits[0].arms[0].score == pytest.approx(1, abs=1e-5)
    assert answer.arms[0].candidates == 12
    assert answer.arms[0].milliseconds > 0


async def test_a_search_by_item_excludes_the_item(gateway: "pb_grpc.GatewayServiceAsyncStub", shoes: str) -> None:
    version = await newest(gateway, shoes)
    answer = await gateway.Search(search(shoes, pb.Arm(item_id="shoe07", space="own"), version=version, top_k=12))
    assert ids(answer)[:2] == ["shoe08", "shoe06"]
    assert "shoe07" not in ids(answer)
    assert len(answer.hits) == 11


async def test_arms_are_fused_and_explained(gateway: "pb_grpc.GatewayServiceAsyncStub", shoes: str) -> None:
    arms = [pb.Arm(text="shoe number 3 of leather", space="text", weight=2), pb.Arm(image=picture(3))]
    answer = await gateway.Search(search(shoes, *arms, version=await newest(gateway, shoes)))
    best = answer.hits[0]
    assert best.item.id == "shoe03"
    assert best.score == pytest.approx(3 / 61)
    assert [(score.arm, score.rank) for score in best.arms] == [(0, 1), (1, 1)]
    assert [(report.space, report.weight, report.request_arm) for report in answer.arms] == [
        ("text", 2.0, 0),
        ("clip", 1.0, 1),
    ]


async def test_an_empty_space_searches_every_space_that_takes_the_query(
    gateway: "pb_grpc.GatewayServiceAsyncStub", shoes: str
) -> None:
    version = await newest(gateway, shoes)
    by_text = await gateway.Search(search(shoes, pb.Arm(text="a shoe"), version=version))
    assert [report.space for report in by_text.arms] == ["clip", "text"]
    by_item = await gateway.Search(search(shoes, pb.Arm(item_id="shoe01"), version=version))
    assert [report.space for report in by_item.arms] == ["clip", "text", "own"]


async def test_a_filter_ranks_only_what_satisfies_it(gateway: "pb_grpc.GatewayServiceAsyncStub", shoes: str) -> None:
    where = '{"colour": "green", "number": {"$lt": 6}}'
    version = await newest(gateway, shoes)
    arm = pb.Arm(vector=vector(8, 1), space="own")
    answer = await gateway.Search(search(shoes, arm, where=where, version=version))
    assert sorted(ids(answer)) == ["shoe01", "shoe03", "shoe05"]
    assert answer.arms[0].candidates == 3
    counted = await gateway.CountItems(pb.CountItemsRequest(collection=shoes, where=filter_pb2.Where(json=where)))
    assert counted.count == 3
    listed = await gateway.ListItems(pb.ListItemsRequest(collection=shoes, where=filter_pb2.Where(json=where)))
    assert [each.id for each in listed.items] == ["shoe01", "shoe03", "shoe05"]


async def test_only_requested_fields_are_returned(gateway: "pb_grpc.GatewayServiceAsyncStub", shoes: str) -> None:
    arm, version = pb.Arm(vector=vector(1, 1), space="own"), await newest(gateway, shoes)
    fields = [item_pb2.ITEM_FIELD_VECTORS, item_pb2.ITEM_FIELD_MEDIA_DATA]
    found = (await gateway.Search(search(shoes, arm, fields=fields, version=version))).hits[0].item
    assert found.media.data == picture(0)
    assert sorted(found.vectors) == ["clip", "own", "text"]
    assert not found.HasField("metadata_json")
    usual = (await gateway.Search(search(shoes, arm, version=version))).hits[0].item
    assert usual.text == "shoe number 0 of leather"
    assert json.loads(usual.metadata_json) == {"number": 0, "colour": "red"}
    assert (usual.media.width, usual.media.height, usual.media.mime_type) == (48, 32, "image/png")
    assert not usual.vectors
    assert not usual.media.HasField("data")


async def test_a_write_is_read_by_its_version(gateway: "pb_grpc.GatewayServiceAsyncStub", shoes: str) -> None:
    for number in range(5):
        answers = await ingest(gateway, shoes, item("new", vectors={"own": vector(-1, number)}))
        arm = pb.Arm(vector=vector(-1, number), space="own")
        found = await gateway.Search(search(shoes, arm, version=versions(answers), top_k=1))
        assert ids(found) == ["new"]
        assert found.hits[0].item.revision == number + 1
        assert found.hits[0].arms[0].score == pytest.approx(1, abs=1e-5)
    selection = store_service_pb2.ItemIds(ids=["new"])
    gone = await gateway.DeleteItems(pb.DeleteItemsRequest(collection=shoes, ids=selection))
    assert gone.deleted == 1
    after = await gateway.Search(search(shoes, arm, version=gone.version, top_k=20))
    assert len(after.hits) == 12


async def test_an_update_makes_new_vectors_of_changed_content(
    gateway: "pb_grpc.GatewayServiceAsyncStub", shoes: str
) -> None:
    changed = await gateway.UpdateItem(
        pb.UpdateItemRequest(collection=shoes, id="shoe05", text="a purple umbrella in the rain")
    )
    assert changed.item.text == "a purple umbrella in the rain"
    assert changed.item.revision == 2
    assert sorted(changed.item.spaces) == ["clip", "own", "text"]
    by_text = search(shoes, pb.Arm(text="a purple umbrella in the rain", space="text"), version=changed.version)
    assert ids(await gateway.Search(by_text))[0] == "shoe05"
    by_picture = search(shoes, pb.Arm(image=picture(5)), version=changed.version)
    assert ids(await gateway.Search(by_picture))[0] == "shoe05"

    source = pb.MediaSource(data=picture(500))
    changed = await gateway.UpdateItem(pb.UpdateItemRequest(collection=shoes, id="shoe05", media=source))
    found = await gateway.Search(search(shoes, pb.Arm(image=picture(500)), version=changed.version))
    assert ids(found)[0] == "shoe05"
    assert found.hits[0].arms[0].score == pytest.approx(1, abs=1e-5)

    removed = await gateway.UpdateItem(pb.UpdateItemRequest(collection=shoes, id="shoe05", remove_media=True))
    assert sorted(removed.item.spaces) == ["own", "text"]
    found = await gateway.Search(search(shoes, pb.Arm(image=picture(500)), version=removed.version, top_k=20))
    assert "shoe05" not in ids(found)


async def test_metadata_are_merged_and_keep_the_vectors(gateway: "pb_grpc.GatewayServiceAsyncStub", shoes: str) -> None:
    change = store_service_pb2.MetadataUpdate(merge_json='{"number": null, "size": 42}')
    changed = await gateway.UpdateItem(pb.UpdateItemRequest(collection=shoes, id="shoe01", metadata=change))
    assert json.loads(changed.item.metadata_json) == {"colour": "green", "size": 42}
    arm = pb.Arm(image=picture(1))
    found = await gateway.Search(search(shoes, arm, where='{"size": 42}', version=changed.version))
    assert ids(found) == ["shoe01"]


async def test_items_come_in_the_order_of_the_request(gateway: "pb_grpc.GatewayServiceAsyncStub", shoes: str) -> None:
    request = pb.GetItemsRequest(collection=shoes, ids=["shoe09", "none", "shoe02"])
    lookups = (await gateway.GetItems(request)).lookups
    assert [lookup.item.id for lookup in lookups] == ["shoe09", "", "shoe02"]
    assert lookups[1].HasField("error")


async def test_a_later_item_of_the_same_id_replaces_the_earlier(
    gateway: "pb_grpc.GatewayServiceAsyncStub", shoes: str
) -> None:
    answers = await ingest(gateway, shoes, *[item("same", text=f"text {number}") for number in range(20)])
    assert outcomes(answers) == ["written"] * 20
    assert [answer.sequence for answer in answers] == list(range(20))
    lookups = (await gateway.GetItems(pb.GetItemsRequest(collection=shoes, ids=["same"]))).lookups
    assert lookups[0].item.text == "text 19"
    assert lookups[0].item.revision == 20


async def test_media_are_uploaded_and_downloaded(gateway: "pb_grpc.GatewayServiceAsyncStub", shoes: str) -> None:
    data = picture(77, (900, 700))

    async def parts() -> AsyncIterator[pb.UploadMediaRequest]:
        yield pb.UploadMediaRequest(header=store_service_pb2.MediaHeader(size_bytes=len(data)))
        for start in range(0, len(data), 2**20):
            yield pb.UploadMediaRequest(chunk=data[start : start + 2**20])

    media = (await gateway.UploadMedia(parts())).media
    assert media.size_bytes == len(data)
    answers = await ingest(gateway, shoes, item("uploaded", media=pb.MediaSource(sha256=media.sha256)))
    assert outcomes(answers) == ["written"]
    found = await gateway.Search(search(shoes, pb.Arm(image=data), version=versions(answers), top_k=1))
    assert ids(found) == ["uploaded"]
    assert found.hits[0].item.media.width == 900
    chunks = [message async for message in gateway.DownloadMedia(pb.DownloadMediaRequest(sha256=media.sha256))]
    assert b"".join(message.chunk for message in chunks) == data
    assert chunks[0].size_bytes == len(data)
    byte_range = store_service_pb2.ByteRange(offset=10, length=20)
    ranged = gateway.DownloadMedia(pb.DownloadMediaRequest(sha256=media.sha256, range=byte_range))
    assert b"".join([message.chunk async for message in ranged]) == data[10:30]


async def test_a_collection_without_spaces_gets_clip_and_text(gateway: "pb_grpc.GatewayServiceAsyncStub") -> None:
    made = await make_collection(gateway, "plain")
    again = await make_collection(gateway, "plain")
    assert made == again
    assert [(space.name, space.model) for space in made.spaces] == [("clip", "medley-mini"), ("text", "minilm")]
    assert all(space.dimensions and space.metric and space.fingerprint and space.sources for space in made.spaces)
    await ingest(gateway, made.name, item("a", text="a shoe", picture=picture(1)), item("b", text="a hat"))
    version = await newest(gateway, made.name)
    answer = await gateway.Search(search(made.name, pb.Arm(text="a hat"), version=version))
    assert sorted(ids(answer)) == ["a", "b"]
    only_text = next(hit for hit in answer.hits if hit.item.id == "b")
    assert only_text.score == pytest.approx(2 / 61)  # the arm of pictures does not apply to it
    await gateway.DropCollection(pb.DropCollectionRequest(name=made.name))


async def test_a_recreated_collection_is_seen_immediately(gateway: "pb_grpc.GatewayServiceAsyncStub") -> None:
    for name in ("first", "second"):
        made = await make_collection(gateway, "again", own_space(name))
        answers = await ingest(gateway, made.name, item("a", vectors={name: vector(1, 2)}))
        arm = pb.Arm(vector=vector(1, 2), space=name)
        assert ids(await gateway.Search(search(made.name, arm, version=versions(answers)))) == ["a"]
        await gateway.DropCollection(pb.DropCollectionRequest(name=made.name))


async def test_status_tells_of_services_models_collections_and_indexes(
    gateway: "pb_grpc.GatewayServiceAsyncStub", shoes: str
) -> None:
    await gateway.Search(search(shoes, pb.Arm(text="a shoe"), version=await newest(gateway, shoes)))
    status = await gateway.GetStatus(pb.GetStatusRequest())
    assert [(service.name, service.HasField("error")) for service in status.services] == [
        ("embedder", False),
        ("store", False),
        ("search", False),
    ]
    assert {"medley-mini", "minilm"} <= {model.name for model in status.models}
    (mine,) = [each for each in status.collections if each.collection.name == shoes]
    assert mine.items == 12
    assert {index.space: index.vectors for index in mine.indexes} == {"clip": 12, "text": 12, "own": 12}
    assert {index.version for index in mine.indexes} == {mine.collection.version}
