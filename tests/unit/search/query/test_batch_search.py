"""Batches of vectors: what is answered, in which version, and which vector is refused."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from medley.v1 import search_service_pb2 as pb
from services.common.errors import (
    ArgumentError,
    DeadlineError,
    DimensionError,
    FingerprintError,
    OverloadedError,
    ServiceError,
    SpaceNotFoundError,
    VectorError,
)
from services.common.filter_codec import from_json, to_message
from services.common.rpc.client import InProcessStub, stream
from services.common.vectors import Matrix
from services.search.query import batch_search, stream_buffer
from services.search.settings import SearchSettings
from services.search.wiring import search_servicer_over
from tests.support.change_feed import MemoryChangeFeed
from tests.unit.search.feeds import DEEP, FLAT, PHOTOS, batch

Request = pb.SearchIndexBatchRequest
ITEMS = {f"i{number:03}": float(number) for number in range(100)}


@pytest.fixture
def store() -> MemoryChangeFeed:
    feed = MemoryChangeFeed()
    feed.create(PHOTOS, [FLAT, DEEP])
    feed.commit(PHOTOS, batch(ITEMS))
    return feed


@pytest.fixture
async def stub(store: MemoryChangeFeed) -> AsyncIterator[InProcessStub]:
    async with search_servicer_over(
        SearchSettings(wait_seconds=0.2, max_batch_calls=2, bulk_threads=3), store
    ) as servicer:
        yield InProcessStub(servicer)


def points(*places: float) -> Matrix:
    return np.array([[x, 0] for x in places], np.float32)


def options(**fields: Any) -> Request:
    return Request(options=pb.SearchIndexBatchOptions(**{"collection": PHOTOS, "space": "flat", **fields}))


def float32(vectors: Matrix) -> Request:
    return Request(vectors=pb.VectorBatch(float32_le=vectors.tobytes()))


def arrow_ipc(*columns: pa.Array, compression: str | None = None) -> Request:
    batch = pa.record_batch(list(columns), [f"column {number}" for number in range(len(columns))])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_batch(batch)
        writer.write_batch(batch.slice(0, 0))
    return Request(vectors=pb.VectorBatch(arrow_ipc=sink.getvalue().to_pybytes()))


def fixed_lists(vectors: Sequence[Any], dimensions: int = 2) -> pa.Array:
    return pa.array(vectors, pa.list_(pa.float32(), dimensions))


async def sent(requests: Iterable[Request]) -> AsyncIterator[Request]:
    for request in requests:
        await asyncio.sleep(0)
        yield request


async def answered(stub: InProcessStub, *requests: Request) -> list[pb.SearchIndexBatchResponse]:
    return [each async for each in stream("search", stub.SearchIndexBatch, sent(requests))]


def told(responses: Iterable[pb.SearchIndexBatchResponse]) -> list[list[tuple[str, float]]]:
    rankings = itertools.chain.from_iterable(response.rankings for response in responses)
    return [
        list(zip(each.ids, np.frombuffer(each.scores_float32_le, "<f4").tolist(), strict=True)) for each in rankings
    ]


def nearest(x: float, count: int) -> list[tuple[str, float]]:
    return sorted(((item, abs(number - x)) for item, number in ITEMS.items()), key=lambda hit: (hit[1], hit[0]))[:count]


async def test_rankings_come_in_the_order_of_the_vectors_however_they_arrive(stub: InProcessStub) -> None:
    places = np.random.default_rng(0).integers(0, 200, 700) / 2
    parts = np.split(points(*places), [1, 2, 4, 300, 300, 650])
    requests = [
        float32(each) if number % 2 else arrow_ipc(fixed_lists(each.tolist())) for number, each in enumerate(parts)
    ]
    responses = await answered(stub, options(top_k=3), *requests)
    assert told(responses) == [nearest(x, 3) for x in places]
    assert {(each.version, each.candidates) for each in responses} == {("uid1.1", 100)}
    ranking = responses[0].rankings[0]
    assert (ranking.mode, ranking.compared >= 3) == (pb.SEARCH_MODE_EXACT, True)


async def test_options_mean_what_they_mean_for_one_vector(stub: InProcessStub, store: MemoryChangeFeed) -> None:
    version = str(store.commit(PHOTOS, batch({"odd": 3.25}, metadata='{"odd": true}')))
    odd = to_message(from_json('{"odd": true}'))
    filtered = await answered(
        stub, options(filter=odd, version=version, fingerprint="made by hand"), float32(points(1, 2))
    )
    assert told(filtered) == [[("odd", 2.25)], [("odd", 1.25)]]
    assert {each.candidates for each in filtered} == {1}
    limited = await answered(stub, options(score_limit=1.0, exact=True), float32(points(50, 99.5)))
    assert told(limited) == [[("i050", 0.0), ("i049", 1.0), ("i051", 1.0)], [("i099", 0.5)]]
    assert [len(hits) for hits in told(await answered(stub, options(), float32(points(5))))] == [10]


async def test_nothing_to_find_is_an_empty_ranking_a_vector(stub: InProcessStub) -> None:
    (response,) = await answered(stub, options(space="deep"), float32(np.ones((3, 3), np.float32)))
    assert (told([response]), response.candidates) == ([[], [], []], 0)


async def test_all_rankings_are_of_one_version_while_others_are_written(
    stub: InProcessStub, store: MemoryChangeFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each version moves every item by one: a ranking of another version would show."""
    monkeypatch.setattr(batch_search, "MAX_CHUNK_VECTORS", 4)
    versions = []
    async for response in stream("search", stub.SearchIndexBatch, sent([options(top_k=1), *[float32(points(0))] * 40])):
        versions.append((response.version, {hits[0][1] for hits in told([response])}))
        store.commit(PHOTOS, batch({item: number + len(versions) for item, number in ITEMS.items()}))
        await asyncio.sleep(0.01)
    assert len(versions) >= 10
    assert {version for version, _ in versions} == {"uid1.1"}
    assert {score for _, scores in versions for score in scores} == {0.0}


ONE = float32(points(1))
NAN = float32(points(1, 2, np.nan))


@pytest.mark.parametrize(
    ("requests", "error", "named"),
    [
        ([], ArgumentError, {"field": "options"}),
        ([ONE], ArgumentError, {"field": "options"}),
        ([options()], ArgumentError, {"field": "vectors", "value": "0"}),
        ([options(), float32(points())], ArgumentError, {"field": "vectors", "value": "0"}),
        ([options(), ONE, options()], ArgumentError, {"field": "options"}),
        ([options(), Request()], ArgumentError, {"field": "part"}),
        ([options(), Request(vectors=pb.VectorBatch())], ArgumentError, {"field": "part"}),
        ([options(top_k=10_001), ONE], ArgumentError, {"field": "top_k"}),
        ([options(score_limit=float("nan")), ONE], ArgumentError, {"field": "score_limit"}),
        ([options(score_limit=float("-inf")), ONE], ArgumentError, {"field": "score_limit"}),
        ([options(space="round"), ONE], SpaceNotFoundError, {"space": "round"}),
        ([options(fingerprint="another"), ONE], FingerprintError, {"actual": "another"}),
        ([options(), ONE, NAN], VectorError, {"place": "3", "problem": "has a NaN or infinite component"}),
        ([options(), ONE, Request(vectors=pb.VectorBatch(float32_le=bytes(20)))], DimensionError, {"place": "3"}),
        ([options(), Request(vectors=pb.VectorBatch(float32_le=bytes(11)))], VectorError, {"place": "1"}),
        ([options(space="deep"), float32(np.eye(4, 3, dtype=np.float32))], VectorError, {"place": "3"}),
        ([options(), arrow_ipc(fixed_lists([[1, 2], None]))], VectorError, {"place": "1", "problem": "is null"}),
        ([options(), ONE, arrow_ipc(fixed_lists([[1, 2], [3, None]]))], VectorError, {"place": "2"}),
        ([options(), ONE, arrow_ipc(fixed_lists([[1, 2, 3]], 3))], DimensionError, {"place": "1", "actual": "3"}),
        ([options(), arrow_ipc(pa.array([1.0, 2.0]))], ArgumentError, {"field": "arrow_ipc", "value": "double"}),
        ([options(), arrow_ipc(*[fixed_lists([[1, 2]])] * 2)], ArgumentError, {"value": "2 columns"}),
        ([options(), arrow_ipc(fixed_lists([[1, 2]]), compression="zstd")], ArgumentError, {"value": "compressed"}),
        ([options(), Request(vectors=pb.VectorBatch(arrow_ipc=b"arrow"))], ArgumentError, {"field": "arrow_ipc"}),
        ([options(), float32(points(*range(10_001)))], ArgumentError, {"field": "vectors", "value": "10001"}),
        ([options(), *[float32(points(*range(6000)))] * 2], ArgumentError, {"field": "vectors", "value": "12000"}),
        ([options(top_k=5000), float32(points(*range(2001)))], ArgumentError, {"field": "vectors", "value": "2001"}),
    ],
)
async def test_a_refusal_names_what_is_wrong_and_where(
    stub: InProcessStub, requests: Sequence[Request], error: type[ServiceError], named: dict[str, str]
) -> None:
    with pytest.raises(error) as caught:
        await answered(stub, *requests)
    assert named.items() <= caught.value.metadata.items()
    if "place" in named:
        assert f"vector {named['place']} of the batch" in str(caught.value)


async def test_as_many_as_allowed_are_answered(stub: InProcessStub) -> None:
    assert len(told(await answered(stub, options(top_k=1), float32(points(*range(10_000)))))) == 10_000


async def test_long_rankings_come_in_messages_of_bounded_size(stub: InProcessStub, store: MemoryChangeFeed) -> None:
    version = str(store.commit(PHOTOS, batch({f"{number:01000}": number for number in range(2000)})))
    responses = await answered(stub, options(top_k=2000, version=version), float32(points(*[0] * 5)))
    assert [len(hits) for hits in told(responses)] == [2000] * 5
    assert len(responses) == 5


async def test_a_silent_caller_does_not_keep_its_place(stub: InProcessStub, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent() -> AsyncIterator[Request]:
        yield options()
        yield ONE
        await asyncio.Event().wait()

    monkeypatch.setattr(stream_buffer, "TIMEOUT_SECONDS", 0.05)
    responses = stream("search", stub.SearchIndexBatch, silent())
    assert told([await anext(responses)]) == [nearest(1, 10)]
    with pytest.raises(DeadlineError):
        await anext(responses)


async def test_calls_are_bounded_and_give_their_place_back(stub: InProcessStub) -> None:
    async def stalled(begun: asyncio.Event) -> AsyncIterator[Request]:
        yield options()
        begun.set()
        await asyncio.Event().wait()

    begun = [asyncio.Event(), asyncio.Event()]
    calls = [asyncio.create_task(anext(stub.SearchIndexBatch(stalled(each), timeout=30))) for each in begun]
    await asyncio.gather(*(each.wait() for each in begun))
    with pytest.raises(OverloadedError) as caught:
        await answered(stub, options(), ONE)
    assert caught.value.metadata == {"queue": "batches", "limit": "2"}
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert await answered(stub, options(), ONE)
