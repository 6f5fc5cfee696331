"""What a search refuses, waits for and answers, through the servicer as another service in the process calls it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import numpy as np
import pytest

from medley.v1 import search_service_pb2 as pb
from medley.v1 import vector_pb2
from services.common.deadlines import deadline_in
from services.common.errors import (
    ArgumentError,
    CollectionNotFoundError,
    DimensionError,
    FilterError,
    FingerprintError,
    OverloadedError,
    ServiceError,
    ServiceUnavailableError,
    SpaceNotFoundError,
    TokenError,
    VectorError,
    VersionUnknownError,
)
from services.common.filter_codec import from_json, to_message
from services.common.rpc.client import STREAM_SECONDS, InProcessStub, call
from services.common.vectors import to_bytes
from services.common.versions import Version
from services.search.core.change_feed import ChangeBatch, SpaceVectors
from services.search.core.errors import VersionNotReachedError
from services.search.servicer import SearchServicer
from services.search.settings import SearchSettings
from services.search.wiring import search_servicer_over
from tests.support.change_feed import MemoryChangeFeed
from tests.unit.search.feeds import DEEP, FLAT, PHOTOS, WeakFeed, batch
from tests.waiting import HANG_SECONDS, POLL_SECONDS, until_raises, until_works


@pytest.fixture
def store() -> MemoryChangeFeed:
    feed = MemoryChangeFeed()
    feed.create(PHOTOS, [FLAT, DEEP])
    feed.commit(PHOTOS, batch({f"i{offset:02}": offset for offset in range(20)}, metadata='{"even": true}'))
    return feed


@pytest.fixture
def feed(store: MemoryChangeFeed) -> WeakFeed:
    return WeakFeed(store)


def serving(feed: WeakFeed, **settings: Any) -> AbstractAsyncContextManager[SearchServicer]:
    return search_servicer_over(SearchSettings(**{"wait_seconds": 0.2, "warm_seconds": 2.0, **settings}), feed)


@pytest.fixture
async def stub(feed: WeakFeed) -> AsyncIterator[InProcessStub]:
    async with serving(feed) as servicer:
        yield InProcessStub(servicer)


def request(x: float = 0, **fields: Any) -> pb.SearchIndexRequest:
    vector = vector_pb2.Vector(float32_le=to_bytes(np.array([x, 0], np.float32)))
    return pb.SearchIndexRequest(**{"collection": PHOTOS, "space": "flat", "vector": vector, **fields})


async def search(stub: InProcessStub, normalize_queries: pb.SearchIndexRequest) -> pb.SearchIndexResponse:
    response: pb.SearchIndexResponse = await call("search", stub.SearchIndex, normalize_queries)
    return response


async def test_hits_come_best_first_with_score_and_spaces(stub: InProcessStub, store: MemoryChangeFeed) -> None:
    vectors = {
        "flat": SpaceVectors(np.array([0]), np.array([[0.5, 0]], np.float32)),
        "deep": SpaceVectors(np.array([0]), np.ones((1, 3), np.float32)),
    }
    version = str(store.commit(PHOTOS, ChangeBatch(["both"], ["{}"], vectors)))
    response = await search(stub, request(0, top_k=3, version=version))
    assert [(hit.id, hit.score, list(hit.spaces)) for hit in response.hits] == [
        ("i00", 0, ["flat"]),
        ("both", 0.5, ["deep", "flat"]),
        ("i01", 1, ["flat"]),
    ]
    assert (response.version, response.mode, response.candidates) == (version, pb.SEARCH_MODE_EXACT, 21)


async def test_ten_hits_unless_asked_otherwise(stub: InProcessStub) -> None:
    assert len((await search(stub, request())).hits) == 10
    assert len((await search(stub, request(top_k=10_000))).hits) == 20


async def test_a_filter_bounds_the_candidates(stub: InProcessStub, store: MemoryChangeFeed) -> None:
    version = str(store.commit(PHOTOS, batch({"odd": 3.5}, metadata='{"even": false}')))
    filtered = request(version=version, filter=to_message(from_json('{"even": false}')))
    response = await search(stub, filtered)
    assert ([hit.id for hit in response.hits], response.candidates) == (["odd"], 1)


async def test_a_score_limit_cuts_hits_not_candidates(stub: InProcessStub) -> None:
    response = await search(stub, request(10, score_limit=1.0))
    assert [hit.id for hit in response.hits] == ["i10", "i09", "i11"]
    assert response.candidates == 20
    assert not (await search(stub, request(10.25, score_limit=0.0))).hits


@pytest.mark.parametrize(
    ("fields", "error", "named"),
    [
        ({"collection": "photos"}, ArgumentError, {"field": "collection", "value": "photos"}),
        ({"collection": "collections/none"}, CollectionNotFoundError, {"collection": "collections/none"}),
        ({"space": "Flat"}, ArgumentError, {"field": "space", "value": "Flat"}),
        ({"space": "round"}, SpaceNotFoundError, {"space": "round", "known": "deep,flat"}),
        ({"top_k": -1}, ArgumentError, {"field": "top_k", "value": "-1"}),
        ({"top_k": 10_001}, ArgumentError, {"field": "top_k", "value": "10001"}),
        ({"score_limit": float("nan")}, ArgumentError, {"field": "score_limit", "value": "nan"}),
        ({"score_limit": float("inf")}, ArgumentError, {"field": "score_limit", "value": "inf"}),
        ({"ids": ["i"] * 10_001}, ArgumentError, {"field": "ids", "value": "10001"}),
        ({"space": "deep"}, DimensionError, {"expected": "3", "actual": "2"}),
        ({"vector": vector_pb2.Vector()}, VectorError, {}),
        ({"vector": vector_pb2.Vector(float32_le=b"123")}, VectorError, {}),
        ({"vector": vector_pb2.Vector(float32_le=to_bytes(np.array([0, np.nan], np.float32)))}, VectorError, {}),
        (
            {"space": "deep", "vector": vector_pb2.Vector(float32_le=bytes(12))},
            VectorError,
            {"problem": "has length zero, which cosine cannot compare"},
        ),
        ({"fingerprint": "another"}, FingerprintError, {"expected": "made by hand", "actual": "another"}),
        ({"filter": {}}, FilterError, {}),
        ({"version": "nonsense"}, TokenError, {"token": "nonsense"}),
        ({"version": "other.1"}, VersionUnknownError, {"collection": PHOTOS, "version": "other.1"}),
        ({"version": "uid1.9"}, VersionNotReachedError, {"wanted": "uid1.9", "applied": "uid1.1"}),
    ],
)
async def test_a_refusal_names_what_is_wrong(
    stub: InProcessStub, fields: dict[str, Any], error: type[ServiceError], named: dict[str, str]
) -> None:
    with pytest.raises(error) as caught:
        await search(stub, request(**fields))
    assert named.items() <= caught.value.metadata.items()


async def test_the_fingerprint_of_the_space_is_accepted(stub: InProcessStub) -> None:
    assert (await search(stub, request(fingerprint="made by hand"))).hits


async def test_the_callers_deadline_bounds_the_wait(feed: WeakFeed) -> None:
    async with serving(feed, wait_seconds=3600.0) as servicer:
        with deadline_in(0.1), pytest.raises(VersionNotReachedError):
            async with asyncio.timeout(HANG_SECONDS):
                await servicer.SearchIndex(request(version="uid1.9"), None)  # type: ignore[arg-type]  # as InProcessStub


async def test_the_deadline_of_the_first_search_is_not_that_of_following(
    feed: WeakFeed, store: MemoryChangeFeed
) -> None:
    async with serving(feed, discover_seconds=3600.0) as servicer:
        store.create("collections/other", [FLAT])
        with deadline_in(5.0):
            await search(InProcessStub(servicer), request(collection="collections/other"))
    assert feed.stream_seconds == [STREAM_SECONDS, STREAM_SECONDS]


async def test_new_collections_are_found_without_being_asked_for(feed: WeakFeed, store: MemoryChangeFeed) -> None:
    async with serving(feed, discover_seconds=0.05) as servicer:
        store.create("collections/other", [FLAT])
        async with asyncio.timeout(HANG_SECONDS):
            while "collections/other" not in await listed(servicer):  # noqa: ASYNC110  # nobody sets an event for it
                await asyncio.sleep(POLL_SECONDS)


async def listed(servicer: SearchServicer) -> set[str]:
    response = await servicer.ListIndexes(pb.ListIndexesRequest(), None)  # type: ignore[arg-type]  # as InProcessStub
    return {index.collection for index in response.indexes}


async def test_without_any_version_a_search_waits_rather_than_answer_from_nothing(feed: WeakFeed) -> None:
    feed.parts_to_come = 0
    feed.down = True
    async with serving(feed, warm_seconds=0.05, discover_seconds=0.05) as servicer:
        with pytest.raises(ServiceUnavailableError):
            await search(InProcessStub(servicer), request())
        feed.down = False
        answer = await until_works(lambda: search(InProcessStub(servicer), request()), ServiceUnavailableError)
        assert answer.candidates == 20


async def test_a_full_house_refuses_at_once(feed: WeakFeed) -> None:
    async with serving(feed, max_searches=1, wait_seconds=3600.0) as servicer:
        stub = InProcessStub(servicer)
        waiting = asyncio.create_task(search(stub, request(version="uid1.9")))
        await asyncio.sleep(0.05)
        with pytest.raises(OverloadedError) as caught:
            await search(stub, request())
        assert caught.value.metadata == {"queue": "searches", "limit": "1"}
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await search(stub, request())).hits


async def test_a_dropped_collection_is_not_found_and_one_made_again_is(
    stub: InProcessStub, store: MemoryChangeFeed
) -> None:
    store.drop(PHOTOS)
    await until_raises(CollectionNotFoundError, lambda: search(stub, request()))
    store.create(PHOTOS, [DEEP])
    with pytest.raises(SpaceNotFoundError):
        await search(stub, request())


async def test_indexes_are_listed_in_pages(stub: InProcessStub, store: MemoryChangeFeed, feed: WeakFeed) -> None:
    listed: list[tuple[str, str, int]] = []
    async with serving(feed) as servicer:
        for name in ("collections/a-b", "collections/a"):
            store.create(name, [FLAT, DEEP])
            await search(InProcessStub(servicer), request(collection=name))
        token = ""
        while True:
            page = await servicer.ListIndexes(pb.ListIndexesRequest(page_size=4, page_token=token), None)  # type: ignore[arg-type]
            listed += [(index.collection, index.space, index.vectors) for index in page.indexes]
            token = page.next_page_token
            if not token:
                break
    assert listed == [
        ("collections/a", "deep", 0),
        ("collections/a", "flat", 0),
        ("collections/a-b", "deep", 0),
        ("collections/a-b", "flat", 0),
        (PHOTOS, "deep", 0),
        (PHOTOS, "flat", 20),
    ]
    (last,) = [index for index in page.indexes if index.space == "flat"]
    assert (last.engine, last.version) == ("faiss-exact", str(Version("uid1", 1)))
    assert last.memory_bytes > 20 * 2 * 4


async def test_a_listing_refuses_what_is_wrong(stub: InProcessStub) -> None:
    for normalize_queries, error in (
        (pb.ListIndexesRequest(page_size=1001), ArgumentError),
        (pb.ListIndexesRequest(page_token="?"), TokenError),
    ):
        with pytest.raises(error):
            await call("search", stub.ListIndexes, normalize_queries)
