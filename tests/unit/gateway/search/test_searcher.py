"""Searches over peers in memory."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from services.common.concurrency.limiter import ConcurrencyLimiter
from services.common.errors import ArgumentError, ItemNotFoundError, OverloadedError, SpaceNotFoundError
from services.common.filters import Comparison, Operator
from services.common.vectors import Matrix
from services.gateway.core.embedder import Purpose
from services.gateway.core.index import IndexResult, Scope
from services.gateway.core.items import Collection, InlineMedia, ItemField, NewItem, Space
from services.gateway.core.metadata_cache import MetadataCache
from services.gateway.search.planner import ArmSpec, ContentQuery, ItemQuery, VectorQuery
from services.gateway.search.searcher import Searcher, SearchRequest, SearchResult
from tests.support.gateway_peers import CORRUPT, MemoryIndex, MemoryItem, MemoryStore
from tests.unit.gateway.harness import CLIP, NAME, OWN, WORDS, Harness, make_harness


def numbered(number: int) -> NewItem:
    return NewItem(
        f"item{number:02}",
        text=f"text {number}",
        media=InlineMedia(f"picture {number}".encode()),
        metadata_json=f'{{"number": {number}}}',
        vectors={"own": np.array([number, 0], "<f4").tobytes()},
    )


async def make_filled_harness(count: int = 30) -> Harness:
    harness = await make_harness()
    await harness.ingest(*map(numbered, range(count)))
    harness.embedder.embedded.clear()
    return harness


def make_request(*arms: ArmSpec, top_k: int = 3) -> SearchRequest:
    return SearchRequest(NAME, arms, top_k=top_k)


def own(number: float) -> ArmSpec:
    return ArmSpec(VectorQuery(np.array([number, 0], "<f4").tobytes()), space="own")


def ids(result: SearchResult[MemoryItem]) -> list[str]:
    return [item.row.id for _, item in result.hits]


async def test_the_item_itself_is_found_by_text_picture_and_vector() -> None:
    harness = await make_filled_harness()
    for arm in (ArmSpec(ContentQuery("text 7"), "text"), ArmSpec(ContentQuery(b"picture 7")), own(7)):
        assert ids(await harness.searcher.search(make_request(arm)))[0] == "item07"


async def test_top_k_hits_come_best_first() -> None:
    harness = await make_filled_harness()
    assert ids(await harness.searcher.search(make_request(own(7), top_k=4))) == ["item07", "item06", "item08", "item05"]


async def test_an_item_is_no_hit_of_its_own_arm() -> None:
    harness = await make_filled_harness()
    answer = await harness.searcher.search(make_request(ArmSpec(ItemQuery("item07"), space="own"), top_k=2))
    assert ids(answer) == ["item06", "item08"]
    assert answer.hits[0][0].arms[0].rank == 1
    assert answer.arms[0].result.candidates == 30


async def test_an_item_arm_returns_as_many_hits_as_requested() -> None:
    harness = await make_filled_harness(5)
    arm = ArmSpec(ItemQuery("item00"), space="own")
    assert len((await harness.searcher.search(SearchRequest(NAME, [arm], top_k=4, depth=4))).hits) == 4


async def test_each_distinct_query_is_embedded_once_a_model() -> None:
    harness = await make_filled_harness()
    arms = [ArmSpec(ContentQuery("a")), ArmSpec(ContentQuery("a"), "text"), ArmSpec(ContentQuery("b"), "text")]
    await harness.searcher.search(make_request(*arms))
    assert sorted(harness.embedder.embedded) == [("mini", ["a"]), ("words", ["a", "b"])]


async def test_items_are_embedded_as_documents_and_queries_as_queries() -> None:
    harness = await make_filled_harness(3)
    assert harness.embedder.purposes == {Purpose.DOCUMENT}
    harness.embedder.purposes.clear()
    await harness.searcher.search(
        make_request(ArmSpec(ContentQuery("text 1"), "text"), ArmSpec(ContentQuery(b"picture 1")))
    )
    assert harness.embedder.purposes == {Purpose.QUERY}


async def test_every_arm_is_reported() -> None:
    harness = await make_filled_harness()
    answer = await harness.searcher.search(make_request(own(1), ArmSpec(ContentQuery("a"), weight=2)))
    reports = [
        (each.arm.request_arm, each.arm.space.name, each.arm.weight, each.result.candidates) for each in answer.arms
    ]
    assert reports == [(0, "own", 1.0, 30), (1, "clip", 2.0, 30), (1, "text", 2.0, 30)]
    assert all(each.milliseconds > 0 for each in answer.arms)
    assert answer.version == harness.store.table(NAME).version


async def test_only_items_that_satisfy_the_filter_are_ranked() -> None:
    harness = await make_filled_harness()
    condition = Comparison(("number",), Operator.GREATER, (20,))
    answer = await harness.searcher.search(replace(make_request(own(7)), condition=condition))
    assert ids(answer) == ["item21", "item22", "item23"]
    assert answer.arms[0].result.candidates == 9


class LossyStore(MemoryStore):
    """A store in which items are gone once the index has named them."""

    def __init__(self, store: MemoryStore, gone: set[str]) -> None:
        self._tables, self._created, self._media = store._tables, 1, {}
        self._gone = gone
        self.requested: list[int] = []

    async def get_items(
        self, collection: str, ids: Sequence[str], fields: Sequence[ItemField]
    ) -> list[MemoryItem | None]:
        self.requested.append(len(ids))
        found = await super().get_items(collection, ids, fields)
        return [item if item and item.row.id not in self._gone else None for item in found]


async def test_a_deleted_item_is_replaced_by_the_next() -> None:
    harness = await make_filled_harness()
    store = LossyStore(harness.store, {"item07", "item06", "item09"})
    searcher = Searcher(
        harness.cache, harness.embedder, MemoryIndex(harness.store), store, ConcurrencyLimiter("searches", 1)
    )
    assert ids(await searcher.search(make_request(own(7), top_k=4))) == ["item08", "item05", "item04", "item10"]
    assert store.requested == [4, 2, 1]


async def test_hits_end_with_the_items() -> None:
    harness = await make_filled_harness(3)
    assert len((await harness.searcher.search(make_request(own(1), top_k=10))).hits) == 3


@pytest.mark.parametrize(
    ("search", "error"),
    [
        (make_request(own(1), top_k=-1), ArgumentError),
        (make_request(own(1), top_k=10_001), ArgumentError),
        (make_request(), ArgumentError),
        (replace(make_request(own(1)), rrf_k=0.0), ArgumentError),
        (make_request(ArmSpec(ItemQuery("none"))), ItemNotFoundError),
        (make_request(replace(own(1), space="none")), SpaceNotFoundError),
    ],
)
async def test_a_bad_search_is_refused(search: SearchRequest, error: type[Exception]) -> None:
    harness = await make_filled_harness(2)
    with pytest.raises(error):
        await harness.searcher.search(search)


async def test_a_query_that_cannot_be_embedded_fails_the_search_with_its_own_error() -> None:
    harness = await make_filled_harness(2)
    with pytest.raises(Exception, match="corrupt") as refused:
        await harness.searcher.search(make_request(own(1), ArmSpec(ContentQuery(CORRUPT))))
    assert refused.value.reason == "MEDIA_INVALID"  # type: ignore[attr-defined]  # matched by its message


async def test_a_definition_that_turns_out_outdated_is_read_again() -> None:
    harness = await make_filled_harness(2)
    await harness.searcher.search(make_request(own(1)))
    await harness.store.drop(NAME)
    await harness.store.create_collection(Collection(NAME, (replace(OWN, name="other"), CLIP, WORDS)), {})
    assert ids(await harness.searcher.search(make_request(replace(own(1), space="other")))) == []


class BlockedIndex:
    """An index that answers when released."""

    def __init__(self, index: MemoryIndex) -> None:
        self._index = index
        self.released = asyncio.Event()
        self.running = 0

    async def search(self, scope: Scope, space: Space, vector: Matrix, fingerprint: str, depth: int) -> IndexResult:
        self.running += 1
        await self.released.wait()
        return await self._index.search(scope, space, vector, fingerprint, depth)


async def test_arms_run_at_the_same_time_and_one_search_too_many_is_refused() -> None:
    harness = await make_filled_harness(2)
    index = BlockedIndex(MemoryIndex(harness.store))
    searcher = Searcher(harness.cache, harness.embedder, index, harness.store, ConcurrencyLimiter("searches", 1))
    first = asyncio.create_task(searcher.search(make_request(own(1), own(2), ArmSpec(ContentQuery("a")))))
    await asyncio.sleep(0.05)
    assert index.running == 4
    with pytest.raises(OverloadedError):
        await searcher.search(make_request(own(1)))
    index.released.set()
    assert len((await first).hits) == 2


async def test_models_and_collections_are_read_once_in_a_while() -> None:
    harness = await make_filled_harness(2)
    names = []

    class Counting(MemoryStore):
        async def get_collection(self, name: str) -> Collection:
            names.append(name)
            return await harness.store.get_collection(name)

    cache = MetadataCache(Counting(), harness.embedder, seconds=60)
    for _ in range(3):
        await cache.get_collection(NAME)
    assert names == [NAME]
    uncached = MetadataCache(Counting(), harness.embedder, seconds=0)
    for _ in range(3):
        await uncached.get_collection(NAME)
    assert names == [NAME] * 4
