"""Searches over neighbours in memory."""

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
from services.gateway.core.index import IndexAnswer, Scope
from services.gateway.core.items import Collection, Inline, ItemField, NewItem, Space
from services.gateway.core.metadata_cache import MetadataCache
from services.gateway.search.planner import ArmSpec, ContentQuery, ItemQuery, VectorQuery
from services.gateway.search.searcher import SearchAnswer, Searcher, SearchRequest
from tests.support.gateway_peers import CORRUPT, MemoryIndex, MemoryItem, MemoryStore
from tests.unit.gateway.worlds import CLIP, NAME, OWN, WORDS, World, world


def numbered(number: int) -> NewItem:
    return NewItem(
        f"item{number:02}",
        text=f"text {number}",
        media=Inline(f"picture {number}".encode()),
        metadata_json=f'{{"number": {number}}}',
        vectors={"own": np.array([number, 0], "<f4").tobytes()},
    )


async def stocked(count: int = 30) -> World:
    around = await world()
    await around.ingest(*map(numbered, range(count)))
    around.embedder.embedded.clear()
    return around


def wish(*arms: ArmSpec, top_k: int = 3) -> SearchRequest:
    return SearchRequest(NAME, arms, top_k=top_k)


def own(number: float) -> ArmSpec:
    return ArmSpec(VectorQuery(np.array([number, 0], "<f4").tobytes()), space="own")


def ids(answer: SearchAnswer[MemoryItem]) -> list[str]:
    return [item.row.id for _, item in answer.hits]


async def test_the_item_itself_is_found_by_text_picture_and_vector() -> None:
    around = await stocked()
    for arm in (ArmSpec(ContentQuery("text 7"), "text"), ArmSpec(ContentQuery(b"picture 7")), own(7)):
        assert ids(await around.searcher.search(wish(arm)))[0] == "item07"


async def test_top_k_hits_come_best_first() -> None:
    around = await stocked()
    assert ids(await around.searcher.search(wish(own(7), top_k=4))) == ["item07", "item06", "item08", "item05"]


async def test_an_item_is_no_hit_of_its_own_arm() -> None:
    around = await stocked()
    answer = await around.searcher.search(wish(ArmSpec(ItemQuery("item07"), space="own"), top_k=2))
    assert ids(answer) == ["item06", "item08"]
    assert answer.hits[0][0].arms[0].rank == 1
    assert answer.runs[0].answer.candidates == 30


async def test_an_item_arm_brings_as_many_hits_as_asked() -> None:
    around = await stocked(5)
    arm = ArmSpec(ItemQuery("item00"), space="own")
    assert len((await around.searcher.search(SearchRequest(NAME, [arm], top_k=4, depth=4))).hits) == 4


async def test_each_distinct_query_is_embedded_once_a_model() -> None:
    around = await stocked()
    arms = [ArmSpec(ContentQuery("a")), ArmSpec(ContentQuery("a"), "text"), ArmSpec(ContentQuery("b"), "text")]
    await around.searcher.search(wish(*arms))
    assert sorted(around.embedder.embedded) == [("mini", ["a"]), ("words", ["a", "b"])]


async def test_items_are_embedded_as_documents_and_queries_as_queries() -> None:
    around = await stocked(3)
    assert around.embedder.purposes == {Purpose.DOCUMENT}
    around.embedder.purposes.clear()
    await around.searcher.search(wish(ArmSpec(ContentQuery("text 1"), "text"), ArmSpec(ContentQuery(b"picture 1"))))
    assert around.embedder.purposes == {Purpose.QUERY}


async def test_reports_tell_of_every_arm() -> None:
    around = await stocked()
    answer = await around.searcher.search(wish(own(1), ArmSpec(ContentQuery("a"), weight=2)))
    told = [(run.arm.wish, run.arm.space.name, run.arm.weight, run.answer.candidates) for run in answer.runs]
    assert told == [(0, "own", 1.0, 30), (1, "clip", 2.0, 30), (1, "text", 2.0, 30)]
    assert all(run.milliseconds > 0 for run in answer.runs)
    assert answer.version == around.store.table(NAME).version


async def test_only_items_that_satisfy_the_filter_are_ranked() -> None:
    around = await stocked()
    condition = Comparison(("number",), Operator.GREATER, (20,))
    answer = await around.searcher.search(replace(wish(own(7)), condition=condition))
    assert ids(answer) == ["item21", "item22", "item23"]
    assert answer.runs[0].answer.candidates == 9


class Losing(MemoryStore):
    """A store in which items are gone once the index has named them."""

    def __init__(self, store: MemoryStore, gone: set[str]) -> None:
        self._tables, self._created, self._media = store._tables, 1, {}
        self._gone = gone
        self.asked: list[int] = []

    async def find(self, collection: str, ids: Sequence[str], fields: Sequence[ItemField]) -> list[MemoryItem | None]:
        self.asked.append(len(ids))
        found = await super().find(collection, ids, fields)
        return [item if item and item.row.id not in self._gone else None for item in found]


async def test_an_item_deleted_meanwhile_leaves_its_place_to_the_next() -> None:
    around = await stocked()
    store = Losing(around.store, {"item07", "item06", "item09"})
    searcher = Searcher(
        around.catalogue, around.embedder, MemoryIndex(around.store), store, ConcurrencyLimiter("searches", 1)
    )
    assert ids(await searcher.search(wish(own(7), top_k=4))) == ["item08", "item05", "item04", "item10"]
    assert store.asked == [4, 2, 1]


async def test_hits_end_with_the_items() -> None:
    around = await stocked(3)
    assert len((await around.searcher.search(wish(own(1), top_k=10))).hits) == 3


@pytest.mark.parametrize(
    ("search", "error"),
    [
        (wish(own(1), top_k=-1), ArgumentError),
        (wish(own(1), top_k=10_001), ArgumentError),
        (wish(), ArgumentError),
        (replace(wish(own(1)), rrf_k=0.0), ArgumentError),
        (wish(ArmSpec(ItemQuery("none"))), ItemNotFoundError),
        (wish(replace(own(1), space="none")), SpaceNotFoundError),
    ],
)
async def test_a_bad_search_is_refused(search: SearchRequest, error: type[Exception]) -> None:
    around = await stocked(2)
    with pytest.raises(error):
        await around.searcher.search(search)


async def test_a_query_that_cannot_be_embedded_fails_the_search_with_its_own_error() -> None:
    around = await stocked(2)
    with pytest.raises(Exception, match="corrupt") as refused:
        await around.searcher.search(wish(own(1), ArmSpec(ContentQuery(CORRUPT))))
    assert refused.value.reason == "MEDIA_INVALID"  # type: ignore[attr-defined]  # matched by its message


async def test_a_definition_that_turns_out_outdated_is_read_again() -> None:
    around = await stocked(2)
    await around.searcher.search(wish(own(1)))
    await around.store.drop(NAME)
    await around.store.create(Collection(NAME, (replace(OWN, name="other"), CLIP, WORDS)), {})
    assert ids(await around.searcher.search(wish(replace(own(1), space="other")))) == []


class Waiting:
    """An index that answers when told."""

    def __init__(self, index: MemoryIndex) -> None:
        self._index = index
        self.go_on = asyncio.Event()
        self.running = 0

    async def search(self, scope: Scope, space: Space, vector: Matrix, fingerprint: str, depth: int) -> IndexAnswer:
        self.running += 1
        await self.go_on.wait()
        return await self._index.search(scope, space, vector, fingerprint, depth)


async def test_arms_run_at_the_same_time_and_one_search_too_many_is_refused() -> None:
    around = await stocked(2)
    index = Waiting(MemoryIndex(around.store))
    searcher = Searcher(around.catalogue, around.embedder, index, around.store, ConcurrencyLimiter("searches", 1))
    first = asyncio.create_task(searcher.search(wish(own(1), own(2), ArmSpec(ContentQuery("a")))))
    await asyncio.sleep(0.05)
    assert index.running == 4
    with pytest.raises(OverloadedError):
        await searcher.search(wish(own(1)))
    index.go_on.set()
    assert len((await first).hits) == 2


async def test_models_and_collections_are_asked_for_once_in_a_while() -> None:
    around = await stocked(2)
    asked = []

    class Counting(MemoryStore):
        async def collection(self, name: str) -> Collection:
            asked.append(name)
            return await around.store.collection(name)

    catalogue = MetadataCache(Counting(), around.embedder, seconds=60)
    for _ in range(3):
        await catalogue.collection(NAME)
    assert asked == [NAME]
    impatient = MetadataCache(Counting(), around.embedder, seconds=0)
    for _ in range(3):
        await impatient.collection(NAME)
    assert asked == [NAME] * 4
