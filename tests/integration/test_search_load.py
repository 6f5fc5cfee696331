"""The search service under many callers, over a real port: what they share, what they cannot do to each other."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from medley.v1 import search_service_pb2 as pb
from medley.v1 import search_service_pb2_grpc, vector_pb2
from services.common.rpc.server import run_server
from services.common.vectors import Matrix, Metric
from services.search.core.change_feed import ChangeBatch, Space, SpaceVectors
from services.search.settings import SearchSettings
from services.search.wiring import search_servicer_over
from tests.support.change_feed import MemoryChangeFeed
from tests.waiting import HANG_SECONDS, until_raises, until_works

ITEMS = "collections/items"
DIMENSIONS = 16
COUNT = 6000
NAME = "medley.v1.SearchService"
VECTORS = np.random.default_rng(3).integers(-9, 10, (COUNT, DIMENSIONS)).astype(np.float32)
IDS = [f"item {number:04}" for number in range(COUNT)]


@pytest.fixture
def feed() -> MemoryChangeFeed:
    feed = MemoryChangeFeed()
    feed.create(ITEMS, [Space("v", DIMENSIONS, Metric.EUCLIDEAN)])
    metadata = [f'{{"n": {number % 10}}}' for number in range(COUNT)]
    feed.commit(ITEMS, ChangeBatch(IDS, metadata, {"v": SpaceVectors(np.arange(COUNT), VECTORS)}))
    return feed


@pytest.fixture
async def channel(feed: MemoryChangeFeed) -> AsyncIterator[grpc.aio.Channel]:
    settings = SearchSettings(
        listen="127.0.0.1:0", drain_seconds=0.2, threads=1, bulk_threads=1, max_searches=40, max_batch_calls=2
    )
    async with search_servicer_over(settings, feed) as servicer:
        register = partial(search_service_pb2_grpc.add_SearchServiceServicer_to_server, servicer)
        async with run_server(settings, NAME, register) as port:
            options = [("grpc.max_receive_message_length", -1)]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
                yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return search_service_pb2_grpc.SearchServiceStub(channel)


def asked(query: Matrix, top_k: int = 10, **fields: Any) -> pb.SearchIndexRequest:
    vector = vector_pb2.Vector(float32_le=query.tobytes())
    return pb.SearchIndexRequest(collection=ITEMS, space="v", vector=vector, top_k=top_k, **fields)


def options(**fields: Any) -> pb.SearchIndexBatchRequest:
    return pb.SearchIndexBatchRequest(options=pb.SearchIndexBatchOptions(collection=ITEMS, space="v", **fields))


def vectors(queries: Matrix) -> pb.SearchIndexBatchRequest:
    return pb.SearchIndexBatchRequest(vectors=pb.VectorBatch(float32_le=queries.tobytes()))


def best(query: Matrix, top_k: int) -> list[str]:
    distances = np.linalg.norm(VECTORS - query, axis=1)
    return [IDS[place] for place in np.lexsort((np.arange(COUNT), distances))[:top_k]]


def queries(count: int, seed: int = 7) -> Matrix:
    return np.random.default_rng(seed).integers(-9, 10, (count, DIMENSIONS)).astype(np.float32)


async def refusal(call: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    (detail,) = rpc_status.from_call(caught.value).details  # type: ignore[arg-type]  # takes an aio error as well
    info = error_details_pb2.ErrorInfo()
    assert detail.Unpack(info)
    return caught.value.code(), info.reason, dict(info.metadata)


async def test_every_concurrent_caller_gets_its_own_answer(stub: Any) -> None:
    sizes = [1, 3, 10, 200, 2000]

    async def call(number: int) -> None:
        for turn, query in enumerate(queries(5, seed=number)):
            top_k = sizes[(number + turn) % len(sizes)]
            answer = await stub.SearchIndex(asked(query, top_k))
            assert [hit.id for hit in answer.hits] == best(query, top_k)

    await asyncio.gather(*(call(number) for number in range(32)))


async def test_a_wrong_caller_among_many_is_refused_alone(stub: Any) -> None:
    query = queries(1)[0]
    wrong = asked(query)
    wrong.space = "none"
    calls = [stub.SearchIndex(wrong if number % 4 == 0 else asked(query)) for number in range(24)]
    answers: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(answer, grpc.aio.AioRpcError) for answer in answers] == [number % 4 == 0 for number in range(24)]
    assert {tuple(hit.id for hit in answer.hits) for answer in answers[1:4]} == {tuple(best(query, 10))}


async def test_callers_who_leave_or_run_out_of_time_do_not_hurt_the_others(stub: Any) -> None:
    asking = queries(30)
    leaving = [stub.SearchIndex(asked(query, 3000)) for query in asking[:10]]
    late = [stub.SearchIndex(asked(query, 3000), timeout=0.001) for query in asking[10:15]]
    staying = [stub.SearchIndex(asked(query, 20)) for query in asking[15:]]
    await asyncio.sleep(0.01)
    for call in leaving:
        call.cancel()
    for call in late:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    answers = await asyncio.gather(*staying)
    assert [[hit.id for hit in answer.hits] for answer in answers] == [best(query, 20) for query in asking[15:]]


async def test_more_searches_than_are_taken_on_are_refused_at_once(stub: Any) -> None:
    query = queries(1)[0]
    waiting = [stub.SearchIndex(asked(query, version="uid1.2"), timeout=HANG_SECONDS) for _ in range(40)]
    await until_raises(grpc.aio.AioRpcError, lambda: stub.SearchIndex(asked(query)))
    code, reason, metadata = await refusal(stub.SearchIndex(asked(query)))
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert metadata == {"queue": "searches", "limit": "40"}
    for call in waiting:
        call.cancel()
    answer: Any = await until_works(lambda: stub.SearchIndex(asked(query)), grpc.aio.AioRpcError)
    assert answer.hits


async def test_a_batch_answers_in_order_while_single_searches_and_health_go_on(
    stub: Any, channel: grpc.aio.Channel
) -> None:
    asking = queries(3000)
    health: Any = health_pb2_grpc.HealthStub(channel)
    done = asyncio.Event()
    beside: list[list[str]] = []

    async def others() -> None:
        while not done.is_set():
            answer = await stub.SearchIndex(asked(asking[0], 5), timeout=HANG_SECONDS)
            beside.append([hit.id for hit in answer.hits])
            status = await health.Check(health_pb2.HealthCheckRequest(service=NAME), timeout=HANG_SECONDS)
            assert status.status == health_pb2.HealthCheckResponse.SERVING

    run_server = asyncio.create_task(others())
    rankings: list[Sequence[str]] = []
    during = 0
    async for response in stub.SearchIndexBatch(iter([options(top_k=50), vectors(asking[:1]), vectors(asking[1:])])):
        rankings += [each.ids for each in response.rankings]
        during = len(beside)
    done.set()
    await run_server
    assert len(rankings) == len(asking)
    for place in (0, 1, 255, 256, 1500, 2999):
        assert rankings[place] == best(asking[place], 50)
    assert during >= 3
    assert all(ids == best(asking[0], 5) for ids in beside)


async def test_deep_searches_leave_the_loop_to_others(stub: Any, channel: grpc.aio.Channel) -> None:
    """Ten thousand hits are found and told in threads: health is answered before any of them is done."""
    health: Any = health_pb2_grpc.HealthStub(channel)
    asking = [asyncio.ensure_future(stub.SearchIndex(asked(query, COUNT))) for query in queries(30)]
    await asyncio.sleep(0.01)
    checks = 0
    while not all(call.done() for call in asking):
        await health.Check(health_pb2.HealthCheckRequest(), timeout=HANG_SECONDS)
        checks += 1
    assert checks >= 3
    assert all(len(call.result().hits) == COUNT for call in asking)


async def test_a_cancelled_batch_stops_and_gives_its_place_back(stub: Any) -> None:
    async def begin() -> Any:
        call = stub.SearchIndexBatch(iter([options(top_k=1000), vectors(queries(9000))]))
        assert (await call.read()).rankings
        return call

    async def whole() -> list[Any]:
        return [each async for each in stub.SearchIndexBatch(iter([options(top_k=1), vectors(queries(3))]))]

    for _ in range(6):
        (await until_works(begin, grpc.aio.AioRpcError)).cancel()
    answers = await until_works(whole, grpc.aio.AioRpcError)
    assert sum(len(each.rankings) for each in answers) == 3


async def test_a_batch_is_refused_at_its_wrong_vector(stub: Any) -> None:
    wrong = queries(5)
    wrong[3, 2] = np.inf

    async def read() -> None:
        async for _ in stub.SearchIndexBatch(iter([options(), vectors(queries(10)), vectors(wrong)])):
            pass

    code, reason, metadata = await refusal(read())
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "VECTOR_INVALID")
    assert metadata == {"problem": "has a NaN or infinite component", "place": "13"}


async def test_an_answer_to_each_vector_before_the_next_is_sent(stub: Any) -> None:
    call = stub.SearchIndexBatch()
    await call.write(options(top_k=1))
    for query in queries(5):
        await call.write(vectors(query[None]))
        (ranking,) = (await call.read()).rankings
        assert ranking.ids == best(query, 1)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_pages_over_the_wire_are_the_whole_ranking(stub: Any, feed: MemoryChangeFeed) -> None:
    query = queries(1)[0]
    read: list[str] = []
    token = ""
    while True:
        answer = await stub.SearchIndex(asked(query, 1000, paged=True, page_token=token))
        read += [hit.id for hit in answer.hits]
        feed.commit(ITEMS, ChangeBatch(deleted_ids=IDS[len(read) - 5 : len(read)]))
        token = answer.next_page_token
        if not token:
            break
    assert read == best(query, COUNT)
