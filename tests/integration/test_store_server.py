"""The store over a real port, on a disk and in memory; and as a process that is killed."""

import asyncio
import contextlib
import hashlib
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from medley._transport.aio_status import server_status
from medley.v1 import collection_pb2, filter_pb2, index_config_pb2, item_pb2, vector_pb2
from medley.v1 import store_service_pb2 as pb
from medley.v1 import store_service_pb2_grpc as pb_grpc
from services.common.errors import CollectionNotFoundError
from services.common.filter_codec import from_json, to_message
from services.common.rpc.client import InProcessStub, call
from services.common.rpc.server import run_server
from services.store.servicer import StoreServicer
from services.store.settings import StoreSettings
from services.store.wiring import store_servicer
from tests.waiting import HANG_SECONDS

PHOTOS = "collections/photos"
PNG = b"\x89PNG\r\n\x1a\n" + b"pixels" * 100
PNG_SHA = hashlib.sha256(PNG).hexdigest()
NO_SHA = "00" * 32
SPACES = (
    collection_pb2.Space(
        name="clip",
        model="medley-mini",
        dimensions=3,
        metric=vector_pb2.METRIC_COSINE,
        sources=[collection_pb2.CONTENT_TYPE_IMAGE, collection_pb2.CONTENT_TYPE_TEXT],
        fingerprint="fingerprint-1",
    ),
    collection_pb2.Space(name="own", dimensions=2, metric=vector_pb2.METRIC_EUCLIDEAN),
)
EXACT = index_config_pb2.IndexConfig(
    exact=index_config_pb2.ExactIndex(storage=index_config_pb2.VECTOR_STORAGE_INT8),
    exact_below_selectivity=0.1,
    recall_floor=0.9,
)
HNSW = index_config_pb2.IndexConfig(
    hnsw=index_config_pb2.HnswIndex(
        m=48, ef_construction=200, ef_search=128, storage=index_config_pb2.VECTOR_STORAGE_FLOAT16
    ),
    exact_below_selectivity=0.1,
    recall_floor=0.95,
)
IVF = index_config_pb2.IndexConfig(ivf=index_config_pb2.IvfIndex(nlist=64, product_bytes=1))
Stub = Any
Change = tuple[bool, dict[str, dict[str, Any]], set[str], str]


def settings(directory: Path, **changes: Any) -> StoreSettings:
    return StoreSettings(
        **{"listen": "127.0.0.1:0", "drain_seconds": 0, "directory": directory, "poll_seconds": 0.05, **changes}
    )


@pytest.fixture(params=["lance", "memory"])
async def servicer(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreServicer]:
    media = {"lance": "folder", "memory": "memory"}[request.param]
    async with store_servicer(settings(tmp_path, rows=request.param, media=media)) as servicer:
        yield servicer


@contextlib.asynccontextmanager
async def serving(servicer: StoreServicer, config: StoreSettings) -> AsyncIterator[Stub]:
    register = partial(pb_grpc.add_StoreServiceServicer_to_server, servicer)
    async with (
        run_server(config, "medley.v1.StoreService", register) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield pb_grpc.StoreServiceStub(channel)


@pytest.fixture
async def stub(servicer: StoreServicer, tmp_path: Path) -> AsyncIterator[Stub]:
    async with serving(servicer, settings(tmp_path)) as stub:
        yield stub


@pytest.fixture
async def photos(stub: Stub) -> Stub:
    await stub.CreateTable(create())
    return stub


def create(name: str = PHOTOS, spaces: Sequence[collection_pb2.Space] = SPACES) -> pb.CreateTableRequest:
    return pb.CreateTableRequest(collection=collection_pb2.Collection(name=name, spaces=spaces))


def indexed(space: collection_pb2.Space, index: index_config_pb2.IndexConfig) -> collection_pb2.Space:
    changed = collection_pb2.Space(index=index)
    changed.MergeFrom(space)
    return changed


def update(space: str, index: index_config_pb2.IndexConfig | None, name: str = PHOTOS) -> pb.UpdateTableSpaceRequest:
    return pb.UpdateTableSpaceRequest(collection=name, space=space, index=index)


def choices(spaces: Sequence[collection_pb2.Space]) -> dict[str, str]:
    """Return how spaces are indexed, by name."""
    return {space.name: str(space.index.WhichOneof("kind")) for space in spaces}


def vector(*components: float) -> vector_pb2.Vector:
    return vector_pb2.Vector(float32_le=np.array(components, "<f4").tobytes())


def row(item_id: str, **fields: Any) -> pb.Row:
    return pb.Row(**{"id": item_id, "text": "a text", **fields})


def where(json_text: str) -> filter_pb2.Filter:
    return to_message(from_json(json_text))


async def upsert(stub: Stub, *rows: pb.Row, **fields: Any) -> list[item_pb2.ItemResult]:
    answer = await stub.UpsertRows(pb.UpsertRowsRequest(collection=PHOTOS, rows=rows, **fields))
    return list(answer.results)


async def written(stub: Stub, *rows: pb.Row) -> str:
    """Write `rows`, all of which must be taken; return the version."""
    results = await upsert(stub, *rows)
    assert [result.WhichOneof("outcome") for result in results] == ["written"] * len(rows), results
    return results[0].written.version


async def get(stub: Stub, *ids: str, fields: Sequence[int] = ()) -> list[item_pb2.ItemLookup]:
    answer = await stub.GetRows(pb.GetRowsRequest(collection=PHOTOS, ids=ids, fields=fields))  # type: ignore[arg-type]
    return list(answer.lookups)


async def item(stub: Stub, item_id: str, *fields: int) -> item_pb2.Item:
    (lookup,) = await get(stub, item_id, fields=fields)
    assert lookup.HasField("item"), lookup
    return lookup.item


async def uploads(*chunks: bytes, **header: Any) -> AsyncIterator[pb.PutMediaRequest]:
    yield pb.PutMediaRequest(header=pb.MediaHeader(**header))
    for chunk in chunks:
        yield pb.PutMediaRequest(chunk=chunk)


async def downloaded(stub: Stub, **request: Any) -> list[pb.ReadMediaResponse]:
    return [message async for message in stub.ReadMedia(pb.ReadMediaRequest(**request))]


def info(status: status_pb2.Status) -> tuple[str, dict[str, str]]:
    (detail,) = status.details
    unpacked = error_details_pb2.ErrorInfo()
    assert detail.Unpack(unpacked)
    return unpacked.reason, dict(unpacked.metadata)


def reason(outcome: item_pb2.ItemResult | item_pb2.ItemLookup) -> str:
    assert outcome.HasField("error"), outcome
    return info(outcome.error)[0]


async def refusal(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with server_status(call):
            await call
    return info(rpc_status.from_call(caught.value))[0]  # type: ignore[arg-type]  # takes what an aio error has as well


def rows_of(message: pb.WatchChangesResponse) -> dict[str, dict[str, Any]]:
    if not message.rows_arrow_ipc:
        return {}
    return {each["id"]: each for each in pa.ipc.open_stream(message.rows_arrow_ipc).read_all().to_pylist()}


async def next_change(messages: Any) -> Change:
    """Return a change put together: reset, rows by id, removed ids, version."""
    rows: dict[str, dict[str, Any]] = {}
    removed: set[str] = set()
    reset = False
    while True:
        message = await asyncio.wait_for(messages.read(), HANG_SECONDS)
        assert message is not grpc.aio.EOF
        reset = reset or message.reset
        rows |= rows_of(message)
        removed |= set(message.deleted_ids)
        if message.version:
            return reset, rows, removed, message.version


async def changes_since(stub: Stub, after: str) -> Change:
    messages = stub.WatchChanges(pb.WatchChangesRequest(collection=PHOTOS, after=after))
    try:
        return await next_change(messages)
    finally:
        messages.cancel()


class TestTables:
    async def test_a_created_table_is_there(self, stub: Stub) -> None:
        made = (await stub.CreateTable(create())).collection
        assert made.name == PHOTOS
        assert list(made.spaces) == [indexed(space, EXACT) for space in SPACES]
        assert made.version
        assert made.HasField("create_time")
        assert (await stub.GetTable(pb.GetTableRequest(name=PHOTOS))).collection == made

    async def test_the_same_again_is_answered_as_it_is(self, photos: Stub) -> None:
        await written(photos, row("x"))
        there = (await photos.GetTable(pb.GetTableRequest(name=PHOTOS))).collection
        assert (await photos.CreateTable(create())).collection == there

    async def test_other_spaces_are_refused(self, photos: Stub) -> None:
        assert await refusal(photos.CreateTable(create(spaces=SPACES[:1]))) == "COLLECTION_EXISTS"

    @pytest.mark.parametrize(
        "request_",
        [
            create("photos"),
            create("collections/A"),
            create("collections/../x"),
            create(spaces=[]),
            create(spaces=[collection_pb2.Space(name="s")]),
            create(spaces=[collection_pb2.Space(name="s", dimensions=4097)]),
            create(spaces=[collection_pb2.Space(name="a.b", dimensions=2)]),
            create(spaces=[SPACES[0], SPACES[0]]),
            create(spaces=[collection_pb2.Space(name=f"s{i}", dimensions=1) for i in range(17)]),
        ],
    )
    async def test_what_cannot_be_is_refused(self, stub: Stub, request_: pb.CreateTableRequest) -> None:
        assert await refusal(stub.CreateTable(request_)) == "ARGUMENT_INVALID"

    async def test_pages_by_name(self, stub: Stub) -> None:
        for name in ("c", "a", "b"):
            await stub.CreateTable(create(f"collections/{name}"))
        first = await stub.ListTables(pb.ListTablesRequest(page_size=2))
        assert [each.name for each in first.collections] == ["collections/a", "collections/b"]
        rest = await stub.ListTables(pb.ListTablesRequest(page_size=2, page_token=first.next_page_token))
        assert [each.name for each in rest.collections] == ["collections/c"]
        assert not rest.next_page_token
        assert await refusal(stub.ListTables(pb.ListTablesRequest(page_token="%"))) == "TOKEN_INVALID"

    async def test_a_dropped_table_is_gone(self, photos: Stub) -> None:
        await photos.DropTable(pb.DropTableRequest(name=PHOTOS))
        for gone in (
            photos.GetTable(pb.GetTableRequest(name=PHOTOS)),
            photos.DropTable(pb.DropTableRequest(name=PHOTOS)),
            photos.UpsertRows(pb.UpsertRowsRequest(collection=PHOTOS, rows=[row("x")])),
            photos.GetRows(pb.GetRowsRequest(collection=PHOTOS, ids=["x"])),
            photos.ListRows(pb.ListRowsRequest(collection=PHOTOS)),
            photos.CountRows(pb.CountRowsRequest(collection=PHOTOS)),
            photos.WatchChanges(pb.WatchChangesRequest(collection=PHOTOS)).read(),
        ):
            assert await refusal(gone) == "COLLECTION_NOT_FOUND"


class TestUpserts:
    async def test_what_is_written_is_read(self, photos: Stub) -> None:
        given = row("x", metadata_json='{"b":1, "a":null}', vectors={"clip": vector(1, 2, 3)})
        (result,) = await upsert(photos, given)
        assert (result.written.id, result.written.revision) == ("x", 1)
        read = await item(photos, "x", *item_pb2.ItemField.values()[1:])
        assert (read.id, read.text, read.metadata_json) == ("x", "a text", '{"b":1, "a":null}')
        assert read.content_type == collection_pb2.CONTENT_TYPE_TEXT
        assert dict(read.vectors) == {"clip": vector(1, 2, 3)}
        assert list(read.spaces) == ["clip"]
        assert read.create_time == read.update_time
        assert not read.HasField("media")

    async def test_a_second_write_replaces_the_first(self, photos: Stub) -> None:
        await written(photos, row("x", vectors={"clip": vector(1, 2, 3)}))
        first = await item(photos, "x")
        await written(photos, row("x", text="other"))
        second = await item(photos, "x")
        assert (second.text, second.revision, list(second.spaces)) == ("other", 2, [])
        assert second.create_time == first.create_time
        assert second.update_time.ToNanoseconds() > first.update_time.ToNanoseconds()

    @pytest.mark.parametrize(
        ("bad", "expected"),
        [
            (row(""), "ID_INVALID"),
            (row("x" * 1025), "ID_INVALID"),
            (row("a\0b"), "ID_INVALID"),
            (row("good"), "ID_DUPLICATE"),
            (row("x", metadata_json="[]"), "METADATA_INVALID"),
            (row("x", metadata_json="{"), "METADATA_INVALID"),
            (row("x", text="a" * 1_000_001), "TEXT_INVALID"),
            (row("x", vectors={"clip": vector(1, 2)}), "DIMENSION_MISMATCH"),
            (row("x", vectors={"clip": vector(0, 0, 0)}), "VECTOR_INVALID"),
            (row("x", vectors={"clip": vector(1, float("nan"), 0)}), "VECTOR_INVALID"),
            (row("x", vectors={"none": vector(1)}), "SPACE_NOT_FOUND"),
            (row("x", expected_revision=3), "REVISION_MISMATCH"),
            (row("x", media=item_pb2.Media(sha256=NO_SHA)), "MEDIA_NOT_FOUND"),
            (row("x", media=item_pb2.Media(sha256="ABC")), "ARGUMENT_INVALID"),
            (row("x", media=item_pb2.Media(data=b"")), "MEDIA_INVALID"),
            (row("x", media=item_pb2.Media(data=b"unknown")), "ARGUMENT_INVALID"),
            (row("x", media=item_pb2.Media(data=PNG, sha256=NO_SHA)), "UPLOAD_INCOMPLETE"),
            (row("x", media=item_pb2.Media(data=PNG, size_bytes=1)), "UPLOAD_INCOMPLETE"),
            (row("x", media_type=collection_pb2.CONTENT_TYPE_IMAGE), "ARGUMENT_INVALID"),
            (pb.Row(id="x"), "ITEM_EMPTY"),
            (pb.Row(id="x", text="", metadata_json='{"a": 1}'), "ITEM_EMPTY"),
        ],
    )
    async def test_a_bad_row_is_refused_and_the_others_go_on(self, photos: Stub, bad: pb.Row, expected: str) -> None:
        good, refused, other = await upsert(photos, row("good"), bad, row("other"))
        assert reason(refused) == expected
        assert (good.written.revision, other.written.revision) == (1, 1)
        assert (await photos.CountRows(pb.CountRowsRequest(collection=PHOTOS))).count == 2

    async def test_a_zero_vector_is_fine_where_it_has_a_distance(self, photos: Stub) -> None:
        await written(photos, row("x", vectors={"own": vector(0, 0)}))

    async def test_expected_revisions(self, photos: Stub) -> None:
        await written(photos, row("x", expected_revision=0))
        (refused,) = await upsert(photos, row("x", expected_revision=0))
        assert info(refused.error) == ("REVISION_MISMATCH", {"id": "x", "expected": "0", "actual": "1"})
        await written(photos, row("x", expected_revision=1))
        assert (await item(photos, "x")).revision == 2

    @pytest.mark.parametrize(
        ("fingerprints", "expected"), [({"clip": "other"}, "FINGERPRINT_MISMATCH"), ({"none": ""}, "SPACE_NOT_FOUND")]
    )
    async def test_other_fingerprints_are_refused(
        self, photos: Stub, fingerprints: Mapping[str, str], expected: str
    ) -> None:
        request = pb.UpsertRowsRequest(collection=PHOTOS, rows=[row("x")], fingerprints=fingerprints)
        assert await refusal(photos.UpsertRows(request)) == expected
        request.fingerprints.clear()
        request.fingerprints["clip"] = "fingerprint-1"
        await photos.UpsertRows(request)

    @pytest.mark.parametrize("number", [0, 10_001])
    async def test_batches_have_a_size(self, photos: Stub, number: int) -> None:
        assert await refusal(upsert(photos, *[row("x")] * number)) == "ARGUMENT_INVALID"

    async def test_inline_media_are_stored_first(self, photos: Stub) -> None:
        await written(photos, row("x", media=item_pb2.Media(data=PNG, width=3, height=2)))
        read = await item(photos, "x", item_pb2.ITEM_FIELD_MEDIA)
        assert read.media == item_pb2.Media(
            sha256=PNG_SHA, mime_type="image/png", size_bytes=len(PNG), width=3, height=2
        )
        assert read.content_type == collection_pb2.CONTENT_TYPE_IMAGE
        assert not read.HasField("text")
        with_bytes = await item(photos, "x", item_pb2.ITEM_FIELD_MEDIA_DATA)
        assert with_bytes.media.data == PNG

    async def test_a_reference_is_completed(self, photos: Stub) -> None:
        await photos.PutMedia(uploads(PNG))
        await written(photos, row("x", text=None, media=item_pb2.Media(sha256=PNG_SHA)))
        media = (await item(photos, "x")).media
        assert (media.mime_type, media.size_bytes) == ("image/png", len(PNG))

    async def test_two_writers_of_the_same_items_leave_one_each(self, photos: Stub) -> None:
        ids = [f"i{i:03d}" for i in range(200)]

        async def write(order: Sequence[str]) -> None:
            for start in range(0, 200, 20):
                await written(photos, *(row(item_id) for item_id in order[start : start + 20]))

        await asyncio.gather(write(ids), write(ids[::-1]))
        listed = await photos.ListRows(pb.ListRowsRequest(collection=PHOTOS, page_size=1000))
        assert [(each.id, each.revision) for each in listed.items] == [(item_id, 2) for item_id in ids]

    async def test_too_much_waiting_is_refused(self, tmp_path: Path) -> None:
        config = settings(tmp_path, max_waiting_rows=10)
        async with store_servicer(config) as servicer, serving(servicer, config) as stub:
            await stub.CreateTable(create())
            outcomes = await asyncio.gather(
                *(upsert(stub, *(row(f"{i}-{j}") for j in range(10))) for i in range(30)), return_exceptions=True
            )
            refused = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
            assert refused
            assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            count = (await stub.CountRows(pb.CountRowsRequest(collection=PHOTOS))).count
            assert count == 10 * (30 - len(refused))


class TestUpdates:
    @pytest.fixture
    async def full(self, photos: Stub) -> Stub:
        await written(
            photos,
            row(
                "x",
                media=item_pb2.Media(data=PNG),
                metadata_json='{"a": 1, "b": {"c": 2, "d": 3}}',
                vectors={"clip": vector(1, 2, 3), "own": vector(1, 2)},
            ),
        )
        return photos

    async def update(self, stub: Stub, **fields: Any) -> item_pb2.Item:
        answer = await stub.UpdateRow(pb.UpdateRowRequest(collection=PHOTOS, id="x", **fields))
        assert answer.version
        assert answer.item == await item(stub, "x")
        updated: item_pb2.Item = answer.item
        return updated

    async def test_what_is_not_given_is_kept(self, full: Stub) -> None:
        before = await item(full, "x")
        after = await self.update(full)
        assert (after.revision, list(after.spaces)) == (2, ["clip", "own"])
        for name in ("text", "media", "metadata_json", "content_type", "create_time"):
            assert getattr(after, name) == getattr(before, name)

    async def test_a_vector_made_from_what_changes_is_dropped_unless_given(self, full: Stub) -> None:
        assert list((await self.update(full, text="new")).spaces) == ["clip", "own"], "clip is made from the picture"
        assert list((await self.update(full, media=item_pb2.Media(data=PNG + b"!"))).spaces) == ["own"]
        kept = await self.update(full, media=item_pb2.Media(data=PNG), vectors={"clip": vector(3, 2, 1)})
        assert list(kept.spaces) == ["clip", "own"]
        without = await self.update(full, remove_media=True)
        assert list(without.spaces) == ["own"], "clip would now be made from the text"
        assert without.content_type == collection_pb2.CONTENT_TYPE_TEXT

    async def test_metadata_are_replaced_or_merged(self, full: Stub) -> None:
        merged = await self.update(full, metadata=pb.MetadataUpdate(merge_json='{"a": null, "b": {"c": 9}, "e": []}'))
        assert merged.metadata_json == '{"b": {"c": 9, "d": 3}, "e": []}'
        replaced = await self.update(full, metadata=pb.MetadataUpdate(replace_json='{"z":0}'))
        assert replaced.metadata_json == '{"z":0}'

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"id": "none"}, "ITEM_NOT_FOUND"),
            ({"id": ""}, "ID_INVALID"),
            ({"expected_revision": 9}, "REVISION_MISMATCH"),
            ({"metadata": pb.MetadataUpdate()}, "ARGUMENT_INVALID"),
            ({"metadata": pb.MetadataUpdate(merge_json="[]")}, "METADATA_INVALID"),
            ({"remove_media": True, "media": item_pb2.Media(data=PNG)}, "ARGUMENT_INVALID"),
            ({"media_type": collection_pb2.CONTENT_TYPE_IMAGE}, "ARGUMENT_INVALID"),
            ({"media": item_pb2.Media(sha256=NO_SHA)}, "MEDIA_NOT_FOUND"),
            ({"fingerprints": {"clip": "other"}}, "FINGERPRINT_MISMATCH"),
            ({"vectors": {"own": vector(1)}}, "DIMENSION_MISMATCH"),
        ],
    )
    async def test_what_cannot_be_changes_nothing(self, full: Stub, fields: dict[str, Any], expected: str) -> None:
        request = pb.UpdateRowRequest(**{"collection": PHOTOS, "id": "x", "text": "new", **fields})
        assert await refusal(full.UpdateRow(request)) == expected
        assert (await item(full, "x")).revision == 1

    async def test_an_item_cannot_be_left_with_nothing(self, photos: Stub) -> None:
        await written(photos, row("x"))
        request = pb.UpdateRowRequest(collection=PHOTOS, id="x", text="")
        assert await refusal(photos.UpdateRow(request)) == "ITEM_EMPTY"

    async def test_updates_at_once_lose_none(self, photos: Stub) -> None:
        await written(photos, row("x"))
        await asyncio.gather(
            *(
                photos.UpdateRow(
                    pb.UpdateRowRequest(
                        collection=PHOTOS, id="x", metadata=pb.MetadataUpdate(merge_json=f'{{"k{i}": {i}}}')
                    )
                )
                for i in range(10)
            )
        )
        read = await item(photos, "x")
        assert read.revision == 11
        assert all(f'"k{i}": {i}' in read.metadata_json for i in range(10))


class TestReads:
    async def test_answers_come_in_the_order_asked(self, photos: Stub) -> None:
        await written(photos, row("a"), row("b"))
        lookups = await get(photos, "b", "none", "", "a", "b")
        assert [lookup.item.id for lookup in lookups] == ["b", "", "", "a", "b"]
        assert [reason(lookups[1]), reason(lookups[2])] == ["ITEM_NOT_FOUND", "ID_INVALID"]

    async def test_only_the_fields_asked_for_come(self, photos: Stub) -> None:
        await written(photos, row("a", metadata_json='{"m": 1}', vectors={"own": vector(1, 2)}))
        read = await item(photos, "a", item_pb2.ITEM_FIELD_VECTORS)
        assert not read.HasField("text")
        assert not read.HasField("metadata_json")
        assert (read.revision, list(read.spaces), dict(read.vectors)) == (1, ["own"], {"own": vector(1, 2)})
        assert await refusal(get(photos, "a", fields=[0])) == "ARGUMENT_INVALID"

    @pytest.mark.parametrize("number", [0, 10_001])
    async def test_ids_have_a_number(self, photos: Stub, number: int) -> None:
        assert await refusal(get(photos, *["x"] * number)) == "ARGUMENT_INVALID"

    async def test_large_media_are_not_inlined_and_too_many_are_refused(self, tmp_path: Path) -> None:
        config = settings(tmp_path, max_inline_media_bytes=len(PNG), max_message_bytes=3 * len(PNG))
        async with store_servicer(config) as servicer, serving(servicer, settings(tmp_path)) as stub:
            await stub.CreateTable(create())
            await written(stub, row("small", media=item_pb2.Media(data=PNG)))
            await written(stub, row("large", media=item_pb2.Media(data=PNG + b"!")))
            inline = item_pb2.ITEM_FIELD_MEDIA_DATA
            assert (await item(stub, "small", inline)).media.data == PNG
            large = await item(stub, "large", inline)
            assert not large.media.HasField("data")
            assert large.media.size_bytes == len(PNG) + 1
            assert await refusal(get(stub, "small", "small", fields=[inline])) == "MESSAGE_TOO_LARGE"
            page = await stub.ListRows(pb.ListRowsRequest(collection=PHOTOS, fields=[inline]))
            assert [each.id for each in page.items] == ["large", "small"]

    async def test_media_that_are_lost_are_told_of_their_item_alone(self, tmp_path: Path) -> None:
        config = settings(tmp_path)
        async with store_servicer(config) as servicer, serving(servicer, config) as stub:
            await stub.CreateTable(create())
            await written(stub, row("lost", media=item_pb2.Media(data=PNG)), row("here"))
            (tmp_path / "media" / PNG_SHA[:2] / PNG_SHA).unlink()
            lost, here = await get(stub, "lost", "here", fields=[item_pb2.ITEM_FIELD_MEDIA_DATA])
            assert (reason(lost), here.item.id) == ("MEDIA_NOT_FOUND", "here")

    async def test_lists_by_id_in_pages(self, photos: Stub) -> None:
        await written(
            photos, *(row(f"{i:02d}", metadata_json=f'{{"even": {str(i % 2 == 0).lower()}}}') for i in range(20))
        )
        for condition, expected in ((None, range(20)), (where('{"even": true}'), range(0, 20, 2))):
            listed, token = [], ""
            while True:
                page = await photos.ListRows(
                    pb.ListRowsRequest(collection=PHOTOS, filter=condition, page_size=3, page_token=token)
                )
                assert len(page.items) <= 3
                listed += [each.id for each in page.items]
                token = page.next_page_token
                if not token:
                    break
            assert listed == [f"{i:02d}" for i in expected]
            count = await photos.CountRows(pb.CountRowsRequest(collection=PHOTOS, filter=condition))
            assert count.count == len(expected)

    async def test_bad_pages_are_refused(self, photos: Stub) -> None:
        for fields, expected in (
            ({"page_size": 1001}, "ARGUMENT_INVALID"),
            ({"page_size": -1}, "ARGUMENT_INVALID"),
            ({"page_token": "?"}, "TOKEN_INVALID"),
            ({"filter": filter_pb2.Filter()}, "FILTER_INVALID"),
        ):
            assert await refusal(photos.ListRows(pb.ListRowsRequest(collection=PHOTOS, **fields))) == expected


class TestDeletes:
    async def test_by_id(self, photos: Stub) -> None:
        before = await written(photos, row("a"), row("b"), row("c"))
        request = pb.DeleteRowsRequest(collection=PHOTOS, ids=pb.ItemIds(ids=["a", "none", "a", "c"]))
        answer = await photos.DeleteRows(request)
        assert answer.deleted == 2
        assert answer.version != before
        assert [lookup.HasField("item") for lookup in await get(photos, "a", "b", "c")] == [False, True, False]
        again = await photos.DeleteRows(request)
        assert (again.deleted, again.version) == (0, answer.version)

    async def test_by_filter(self, photos: Stub) -> None:
        await written(photos, *(row(f"{i}", metadata_json=f'{{"i": {i}}}') for i in range(9)))
        answer = await photos.DeleteRows(pb.DeleteRowsRequest(collection=PHOTOS, filter=where('{"i": {"$gte": 3}}')))
        assert answer.deleted == 6
        assert (await photos.CountRows(pb.CountRowsRequest(collection=PHOTOS))).count == 3

    async def test_a_deleted_item_begins_anew(self, photos: Stub) -> None:
        await written(photos, row("a"))
        await written(photos, row("a"))
        await photos.DeleteRows(pb.DeleteRowsRequest(collection=PHOTOS, ids=pb.ItemIds(ids=["a"])))
        await written(photos, row("a", expected_revision=0))
        assert (await item(photos, "a")).revision == 1

    async def test_nothing_named_is_refused(self, photos: Stub) -> None:
        nothing = pb.DeleteRowsRequest(collection=PHOTOS)
        for request in (nothing, pb.DeleteRowsRequest(collection=PHOTOS, ids=pb.ItemIds())):
            assert await refusal(photos.DeleteRows(request)) == "ARGUMENT_INVALID"


class TestMedia:
    async def test_what_is_put_is_read_in_chunks(self, stub: Stub) -> None:
        content = os.urandom(2**21 + 5)
        sha256 = hashlib.sha256(content).hexdigest()
        chunks = [content[start : start + 2**20] for start in range(0, len(content), 2**20)]
        answer = await stub.PutMedia(uploads(*chunks, size_bytes=len(content), sha256=sha256, mime_type="video/x"))
        assert answer.media == item_pb2.Media(sha256=sha256, mime_type="video/x", size_bytes=len(content))
        messages = await downloaded(stub, sha256=sha256)
        assert b"".join(message.chunk for message in messages) == content
        assert max(len(message.chunk) for message in messages) == 2**20
        assert [message.size_bytes for message in messages] == [len(content), 0, 0]

    async def test_ranges(self, stub: Stub) -> None:
        await stub.PutMedia(uploads(PNG))
        for offset, length, expected in (
            (0, 3, PNG[:3]),
            (5, 0, PNG[5:]),
            (len(PNG) - 2, 9, PNG[-2:]),
            (len(PNG), 0, b""),
        ):
            span = pb.ByteRange(offset=offset, length=length)
            (message,) = await downloaded(stub, sha256=PNG_SHA, range=span)
            assert (message.chunk, message.size_bytes) == (expected, len(PNG))

    async def test_what_cannot_be_read_is_refused(self, stub: Stub) -> None:
        await stub.PutMedia(uploads(PNG))
        for request, expected in (
            ({"sha256": NO_SHA}, "MEDIA_NOT_FOUND"),
            ({"sha256": "../../etc/passwd"}, "ARGUMENT_INVALID"),
            ({"sha256": PNG_SHA, "range": pb.ByteRange(offset=len(PNG) + 1)}, "ARGUMENT_INVALID"),
            ({"sha256": PNG_SHA, "range": pb.ByteRange(offset=-1)}, "ARGUMENT_INVALID"),
            ({"sha256": PNG_SHA, "range": pb.ByteRange(length=-1)}, "ARGUMENT_INVALID"),
        ):
            assert await refusal(downloaded(stub, **request)) == expected

    async def test_what_cannot_be_stored_is_refused(self, stub: Stub) -> None:
        async def no_header() -> AsyncIterator[pb.PutMediaRequest]:
            yield pb.PutMediaRequest(chunk=PNG)

        async def nothing() -> AsyncIterator[pb.PutMediaRequest]:
            return
            yield

        async def two_headers() -> AsyncIterator[pb.PutMediaRequest]:
            yield pb.PutMediaRequest(header=pb.MediaHeader())
            yield pb.PutMediaRequest(header=pb.MediaHeader())

        for upload, expected in (
            (no_header(), "ARGUMENT_INVALID"),
            (nothing(), "ARGUMENT_INVALID"),
            (two_headers(), "ARGUMENT_INVALID"),
            (uploads(b"x" * (2**20 + 1)), "ARGUMENT_INVALID"),
            (uploads(PNG, sha256="abc"), "ARGUMENT_INVALID"),
            (uploads(PNG, size_bytes=-1), "ARGUMENT_INVALID"),
            (uploads(PNG, size_bytes=len(PNG) + 1), "UPLOAD_INCOMPLETE"),
            (uploads(PNG, sha256=NO_SHA), "UPLOAD_INCOMPLETE"),
            (uploads(), "MEDIA_INVALID"),
        ):
            assert await refusal(stub.PutMedia(upload)) == expected
        assert await refusal(downloaded(stub, sha256=PNG_SHA)) == "MEDIA_NOT_FOUND"

    async def test_a_client_that_goes_away_leaves_nothing(self, tmp_path: Path) -> None:
        config = settings(tmp_path)
        incoming = tmp_path / "media" / "incoming"
        async with store_servicer(config) as servicer, serving(servicer, config) as stub:

            async def endless() -> AsyncIterator[pb.PutMediaRequest]:
                yield pb.PutMediaRequest(header=pb.MediaHeader(size_bytes=10**9))
                yield pb.PutMediaRequest(chunk=PNG)
                yield pb.PutMediaRequest(chunk=PNG)
                await asyncio.Event().wait()

            upload = stub.PutMedia(endless())
            await until(lambda: any(incoming.iterdir()))
            upload.cancel()
            await until(lambda: not any(incoming.iterdir()))


class TestIndexes:
    async def test_a_table_is_indexed_as_it_was_created(self, stub: Stub) -> None:
        made = (await stub.CreateTable(create(spaces=[indexed(SPACES[0], HNSW), SPACES[1]]))).collection
        assert [space.index for space in made.spaces] == [HNSW, EXACT]
        assert (await stub.GetTable(pb.GetTableRequest(name=PHOTOS))).collection == made
        assert list((await stub.ListTables(pb.ListTablesRequest())).collections) == [made]

    async def test_the_same_again_stays_indexed_as_it_is(self, photos: Stub) -> None:
        there = (await photos.GetTable(pb.GetTableRequest(name=PHOTOS))).collection
        again = create(spaces=[indexed(SPACES[0], HNSW), indexed(SPACES[1], IVF)])
        assert (await photos.CreateTable(again)).collection == there

    async def test_an_update_is_a_version(self, photos: Stub) -> None:
        before = await written(photos, row("a"))
        updated = (await photos.UpdateTableSpace(update("clip", HNSW))).collection
        assert [space.index for space in updated.spaces] == [HNSW, EXACT]
        assert (await photos.GetTable(pb.GetTableRequest(name=PHOTOS))).collection == updated
        assert updated.version != before
        assert (await photos.UpdateTableSpace(update("clip", HNSW))).collection == updated, "nothing to change"
        assert await changes_since(photos, before) == (False, {}, set(), updated.version)

    @pytest.mark.parametrize(
        ("index", "name", "value"),
        [
            (index_config_pb2.IndexConfig(hnsw=index_config_pb2.HnswIndex(m=3)), "index.hnsw.m", "3"),
            (
                index_config_pb2.IndexConfig(ivf=index_config_pb2.IvfIndex(product_bytes=2)),
                "index.ivf.product_bytes",
                "2",
            ),
            (index_config_pb2.IndexConfig(recall_floor=1.5), "index.recall_floor", "1.5"),
            (
                index_config_pb2.IndexConfig(exact_below_selectivity=float("nan")),
                "index.exact_below_selectivity",
                "nan",
            ),
            (
                index_config_pb2.IndexConfig(exact=index_config_pb2.ExactIndex(storage=9)),  # type: ignore[arg-type]
                "index.exact.storage",
                "9",
            ),
            (None, "index", ""),
        ],
    )
    async def test_what_cannot_be_is_refused_by_name(
        self, photos: Stub, index: index_config_pb2.IndexConfig | None, name: str, value: str
    ) -> None:
        there = (await photos.GetTable(pb.GetTableRequest(name=PHOTOS))).collection
        three = collection_pb2.Space(name="clip", dimensions=3, index=index)
        requests = [photos.UpdateTableSpace(update("clip", index))]
        requests += [photos.CreateTable(create("collections/new", [three]))] if index else []
        for request in requests:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await request
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # takes what an aio error has as well
            reason, metadata = info(status)
            assert (reason, metadata["field"], metadata["value"]) == ("ARGUMENT_INVALID", name, value)
        assert (await photos.GetTable(pb.GetTableRequest(name=PHOTOS))).collection == there

    async def test_only_what_is_there_is_updated(self, photos: Stub) -> None:
        assert await refusal(photos.UpdateTableSpace(update("none", HNSW))) == "SPACE_NOT_FOUND"
        assert await refusal(photos.UpdateTableSpace(update("", HNSW))) == "ARGUMENT_INVALID"
        assert await refusal(photos.UpdateTableSpace(update("clip", HNSW, "collections/x"))) == "COLLECTION_NOT_FOUND"

    async def test_a_watch_tells_the_spaces_at_first_and_when_they_change(self, photos: Stub) -> None:
        messages = photos.WatchChanges(pb.WatchChangesRequest(collection=PHOTOS))
        told = [await versioned(messages)]
        await written(photos, row("a"))
        told.append(await versioned(messages))
        updated = (await photos.UpdateTableSpace(update("own", IVF))).collection
        told.append(await versioned(messages))
        messages.cancel()
        assert [choices(message.spaces) for message in told] == [
            {"clip": "exact", "own": "exact"},
            {},
            {"clip": "exact", "own": "ivf"},
        ]
        assert (told[2].version, list(told[2].spaces)) == (updated.version, list(updated.spaces))

    async def test_updates_and_writes_at_a_time_are_all_kept(self, photos: Stub) -> None:
        await asyncio.gather(
            photos.UpdateTableSpace(update("clip", HNSW)),
            *(written(photos, row(f"r{number}")) for number in range(5)),
            photos.UpdateTableSpace(update("own", IVF)),
        )
        there = (await photos.GetTable(pb.GetTableRequest(name=PHOTOS))).collection
        assert choices(there.spaces) == {"clip": "hnsw", "own": "ivf"}
        assert (await photos.CountRows(pb.CountRowsRequest(collection=PHOTOS))).count == 5

    async def test_a_table_whose_index_was_changed_can_be_dropped_and_made_anew(self, photos: Stub) -> None:
        await photos.UpdateTableSpace(update("clip", HNSW))
        await photos.DropTable(pb.DropTableRequest(name=PHOTOS))
        assert choices((await photos.CreateTable(create())).collection.spaces) == {"clip": "exact", "own": "exact"}


async def versioned(messages: Any) -> pb.WatchChangesResponse:
    """Return the next message that carries a version."""
    while True:
        message: pb.WatchChangesResponse = await asyncio.wait_for(messages.read(), HANG_SECONDS)
        if message.version:
            return message


class TestChanges:
    async def test_an_empty_table_tells_its_version_at_once(self, photos: Stub) -> None:
        there = (await photos.GetTable(pb.GetTableRequest(name=PHOTOS))).collection.version
        assert await changes_since(photos, "") == (False, {}, set(), there)

    async def test_rows_carry_metadata_and_vectors(self, photos: Stub) -> None:
        version = await written(photos, row("a", metadata_json='{"m":1}', vectors={"clip": vector(1, 2, 3)}), row("b"))
        reset, rows, removed, told = await changes_since(photos, "")
        assert (reset, removed, told) == (False, set(), version)
        assert rows == {
            "a": {"id": "a", "metadata": '{"m":1}', "vector.clip": [1, 2, 3], "vector.own": None},
            "b": {"id": "b", "metadata": "{}", "vector.clip": None, "vector.own": None},
        }

    async def test_a_watcher_sees_each_commit(self, photos: Stub) -> None:
        messages = photos.WatchChanges(pb.WatchChangesRequest(collection=PHOTOS))
        await next_change(messages)
        first = await written(photos, row("a"), row("b"))
        _, rows, removed, version = await next_change(messages)
        assert (set(rows), removed, version) == ({"a", "b"}, set(), first)
        deleted = await photos.DeleteRows(pb.DeleteRowsRequest(collection=PHOTOS, ids=pb.ItemIds(ids=["a"])))
        _, rows, removed, version = await next_change(messages)
        assert (rows, removed, version) == ({}, {"a"}, deleted.version)
        messages.cancel()

    async def test_tokens_of_other_tables_reset(self, photos: Stub) -> None:
        version = await written(photos, row("a"))
        await photos.DropTable(pb.DropTableRequest(name=PHOTOS))
        await photos.CreateTable(create())
        new = await written(photos, row("b"))
        reset, rows, removed, told = await changes_since(photos, version)
        assert (reset, set(rows), removed, told) == (True, {"b"}, set(), new)

    async def test_a_token_that_is_none_is_refused(self, photos: Stub) -> None:
        request = pb.WatchChangesRequest(collection=PHOTOS, after="?")
        assert await refusal(photos.WatchChanges(request).read()) == "TOKEN_INVALID"

    async def test_dropping_ends_a_watch(self, photos: Stub) -> None:
        messages = photos.WatchChanges(pb.WatchChangesRequest(collection=PHOTOS))
        await next_change(messages)
        await photos.DropTable(pb.DropTableRequest(name=PHOTOS))
        assert await refusal(asyncio.wait_for(messages.read(), HANG_SECONDS)) == "COLLECTION_NOT_FOUND"


async def test_stopping_ends_watches_so_that_they_come_again(servicer: StoreServicer, photos: Stub) -> None:
    messages = photos.WatchChanges(pb.WatchChangesRequest(collection=PHOTOS))
    await next_change(messages)
    servicer.end_watches()
    assert await refusal(asyncio.wait_for(messages.read(), HANG_SECONDS)) == "SERVICE_UNAVAILABLE"


async def test_direct_calls_need_no_context(servicer: StoreServicer) -> None:
    stub = InProcessStub(servicer)
    with pytest.raises(CollectionNotFoundError):
        await call("store", stub.GetTable, pb.GetTableRequest(name=PHOTOS))
    await call("store", stub.CreateTable, create())
    answer = await call("store", stub.PutMedia, uploads(PNG))
    assert answer.media.sha256 == PNG_SHA


async def test_a_restart_keeps_everything_and_a_watch_resumes(tmp_path: Path) -> None:
    config = settings(tmp_path)
    async with store_servicer(config) as servicer, serving(servicer, config) as stub:
        await stub.CreateTable(create())
        made = (await stub.GetTable(pb.GetTableRequest(name=PHOTOS))).collection
        held = await written(stub, row("a"), row("b"), row("again"))
        await written(stub, row("c"), row("a"))
        await stub.DeleteRows(pb.DeleteRowsRequest(collection=PHOTOS, ids=pb.ItemIds(ids=["b", "again"])))
    async with store_servicer(config) as servicer, serving(servicer, config) as stub:
        there = (await stub.GetTable(pb.GetTableRequest(name=PHOTOS))).collection
        assert (there.spaces, there.create_time) == (made.spaces, made.create_time)
        last = await written(stub, row("again"))
        reset, rows, removed, version = await changes_since(stub, held)
        assert (reset, set(rows), removed, version) == (False, {"a", "c", "again"}, {"b"}, last)


async def test_a_restart_keeps_how_spaces_are_indexed(tmp_path: Path) -> None:
    config = settings(tmp_path)
    async with store_servicer(config) as servicer, serving(servicer, config) as stub:
        await stub.CreateTable(create(spaces=[SPACES[0], indexed(SPACES[1], IVF)]))
        updated = (await stub.UpdateTableSpace(update("clip", HNSW))).collection
    async with store_servicer(config) as servicer, serving(servicer, config) as stub:
        there = (await stub.GetTable(pb.GetTableRequest(name=PHOTOS))).collection
        assert there == updated
        assert choices(there.spaces) == {"clip": "hnsw", "own": "ivf"}


async def test_a_table_from_before_there_was_a_choice_is_exact(tmp_path: Path) -> None:
    config = settings(tmp_path)
    async with store_servicer(config) as servicer, serving(servicer, config) as stub:
        await stub.CreateTable(create())
    path = tmp_path / "collections" / "photos.json"
    fields = json.loads(path.read_text())
    for space in fields["spaces"]:
        del space["index"]
    path.write_text(json.dumps(fields))
    async with store_servicer(config) as servicer, serving(servicer, config) as stub:
        there = (await stub.GetTable(pb.GetTableRequest(name=PHOTOS))).collection
        assert [space.index for space in there.spaces] == [EXACT, EXACT]
        await stub.UpdateTableSpace(update("clip", HNSW))
        await stub.DropTable(pb.DropTableRequest(name=PHOTOS))


async def test_two_processes_that_change_indexes_lose_nothing(tmp_path: Path) -> None:
    config = settings(tmp_path)
    async with (
        store_servicer(config) as one,
        store_servicer(config) as other,
        serving(one, config) as first,
        serving(other, config) as second,
    ):
        await first.CreateTable(create())
        await asyncio.gather(
            *(first.UpdateTableSpace(update("clip", index)) for index in (HNSW, EXACT, HNSW)),
            *(second.UpdateTableSpace(update("own", index)) for index in (IVF, IVF)),
            *(written(stub, row(f"i{number}")) for number, stub in enumerate((first, second) * 3)),
        )
        last = (await second.UpdateTableSpace(update("clip", IVF))).collection
        assert choices(last.spaces) == {"clip": "ivf", "own": "ivf"}

        async def seen() -> dict[str, str]:
            return choices((await first.GetTable(pb.GetTableRequest(name=PHOTOS))).collection.spaces)

        await until_async(seen, choices(last.spaces))
        assert (await first.CountRows(pb.CountRowsRequest(collection=PHOTOS))).count == 6


async def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    config = settings(tmp_path)
    async with (
        store_servicer(config) as one,
        store_servicer(config) as other,
        serving(one, config) as first,
        serving(other, config) as second,
    ):
        await first.CreateTable(create())
        await written(second, row("from-second"))
        messages = second.WatchChanges(pb.WatchChangesRequest(collection=PHOTOS))
        await next_change(messages)

        async def write(stub: Stub) -> None:
            for start in range(0, 200, 20):
                await written(stub, *(row(f"i{i:03d}") for i in range(start, start + 20)))

        await asyncio.gather(write(first), write(second))
        seen: set[str] = set()
        while len(seen) < 200:
            seen |= set((await next_change(messages))[1]) - {"from-second"}
        messages.cancel()
        await until_async(lambda: revisions(first), [2] * 200 + [1])
        await first.DropTable(pb.DropTableRequest(name=PHOTOS))
        request = pb.WatchChangesRequest(collection=PHOTOS)
        watch = second.WatchChanges(request)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while True:
                await next_change(watch)
        assert info(rpc_status.from_call(caught.value))[0] == "COLLECTION_NOT_FOUND"  # type: ignore[arg-type]


class Follower:
    """Holds a collection by its change feed, and loses the connection again and again."""

    def __init__(self, dice: random.Random) -> None:
        self.held: dict[str, str] = {}
        self.version = ""
        self._dice = dice

    async def follow(self, stub: Stub) -> None:
        while True:
            messages = stub.WatchChanges(pb.WatchChangesRequest(collection=PHOTOS, after=self.version))
            for _ in range(self._dice.randint(1, 20)):
                self._apply(await messages.read())
            messages.cancel()

    def _apply(self, message: pb.WatchChangesResponse) -> None:
        if message.reset:
            self.held.clear()
        for item_id in message.deleted_ids:
            self.held.pop(item_id, None)
        self.held |= {item_id: each["metadata"] for item_id, each in rows_of(message).items()}
        self.version = message.version or self.version


async def disturb(stub: Stub, dice: random.Random, rounds: int) -> None:
    """Write, update and remove items at random."""
    for _ in range(rounds):
        ids = [f"{i}" for i in dice.sample(range(100), 5)]
        metadata = json.dumps({"n": dice.random()})
        if dice.random() < 0.7:
            await written(stub, *(row(item_id, metadata_json=metadata) for item_id in ids))
        else:
            await stub.DeleteRows(pb.DeleteRowsRequest(collection=PHOTOS, ids=pb.ItemIds(ids=ids)))


@pytest.mark.parametrize("deletions_kept_seconds", [3600, 0.1])
async def test_a_follower_holds_what_the_store_holds(tmp_path: Path, deletions_kept_seconds: float) -> None:
    """Two processes write, compact and forget, one tells; only what was committed counts."""
    dice = random.Random(7)
    config = settings(
        tmp_path, tidy_seconds=0.1, versions_kept_seconds=1, deletions_kept_seconds=deletions_kept_seconds
    )
    async with (
        store_servicer(config) as one,
        store_servicer(config) as other,
        serving(one, config) as first,
        serving(other, config) as second,
    ):
        await first.CreateTable(create())
        follower = Follower(dice)
        following = asyncio.create_task(follower.follow(second))
        await asyncio.gather(*(disturb(stub, dice, 20) for stub in (first, first, second)))
        last = int((await written(first, row("last"))).split(".")[1])
        await until(lambda: following.done() or int(follower.version.split(".")[1]) >= last)
        following.cancel()
        listed = await first.ListRows(pb.ListRowsRequest(collection=PHOTOS, page_size=1000))
        assert follower.held == {each.id: each.metadata_json for each in listed.items}


async def revisions(stub: Stub) -> list[int]:
    listed = await stub.ListRows(pb.ListRowsRequest(collection=PHOTOS, page_size=1000))
    return sorted((each.revision for each in listed.items), reverse=True)


async def until(condition: Any) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while not condition():  # noqa: ASYNC110  # nobody sets an event for it
            await asyncio.sleep(0.01)


async def until_async(condition: Any, expected: Any) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while await condition() != expected:  # noqa: ASYNC110  # nobody sets an event for it
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def process(directory: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, Stub]]:
    environment = {
        **os.environ,
        "STORE_DATA_DIR": str(directory),
        "STORE_LISTEN": "127.0.0.1:0",
        "STORE_TIDY_SECONDS": "0.3",
        "STORE_DRAIN_SECONDS": "3600",
    }
    store = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.store", stderr=asyncio.subprocess.PIPE, env=environment
    )
    assert store.stderr
    try:
        async with asyncio.timeout(HANG_SECONDS):
            while b"listens on port" not in (line := await store.stderr.readline()):
                assert line, "the store ended"
        port = int(line.split()[-1])
        reading = asyncio.create_task(store.stderr.read())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield store, pb_grpc.StoreServiceStub(channel)
        await reading
    finally:
        with contextlib.suppress(ProcessLookupError):
            store.kill()
        await store.wait()


async def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    acknowledged: dict[str, str] = {}
    version = ""

    async def write(stub: Stub, worker: int) -> None:
        for number in range(10_000):
            ids = [f"{worker}-{number}-{i}" for i in range(5)] + [f"shared-{number % 7}"]
            content = f"{worker} {number}".encode()
            rows = [row(item_id, media=item_pb2.Media(data=PNG + content)) for item_id in ids]
            results = await upsert(stub, *rows)
            assert all(result.HasField("written") for result in results)
            acknowledged.update(dict.fromkeys(ids[:5], hashlib.sha256(PNG + content).hexdigest()))

    async with process(tmp_path) as (store, stub):
        await stub.CreateTable(create())
        version = await written(stub, row("first"), row("doomed"))
        await stub.DeleteRows(pb.DeleteRowsRequest(collection=PHOTOS, ids=pb.ItemIds(ids=["doomed"])))
        writers = [asyncio.create_task(write(stub, worker)) for worker in range(4)]
        await until(lambda: len(acknowledged) > 300)
        store.send_signal(signal.SIGKILL)
        outcomes = await asyncio.gather(*writers, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {grpc.aio.AioRpcError}

    async with process(tmp_path) as (store, stub):
        listed: list[str] = []
        token = ""
        while True:
            page = await stub.ListRows(pb.ListRowsRequest(collection=PHOTOS, page_size=1000, page_token=token))
            listed += [each.id for each in page.items]
            token = page.next_page_token
            if not token:
                break
        assert len(listed) == len(set(listed))
        assert set(acknowledged) <= set(listed)
        for item_id in list(acknowledged)[::29]:
            read = await item(stub, item_id, item_pb2.ITEM_FIELD_MEDIA_DATA)
            assert hashlib.sha256(read.media.data).hexdigest() == acknowledged[item_id]
        reset, rows, removed, _ = await changes_since(stub, version)
        assert not reset
        assert set(rows) == set(listed) - {"first"}
        assert removed == {"doomed"}
        messages = stub.WatchChanges(pb.WatchChangesRequest(collection=PHOTOS))
        await next_change(messages)
        store.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(store.wait(), HANG_SECONDS) == 0
