"""Single searches that wait for a thread together, and what each of them gets."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest

from services.common.concurrency.executors import BoundedExecutor
from services.common.deadlines import deadline_in
from services.common.errors import DeadlineError
from services.common.filters import Comparison, Operator
from services.common.vectors import Matrix
from services.common.versions import Version
from services.search.collection.collection import LocalCollectionIndex
from services.search.core.change_feed import Table
from services.search.core.collection_index import CollectionIndex, Search, SearchResult
from services.search.query.dynamic_batching import SearchBatcher
from tests.unit.search.feeds import FLAT, batch, make_index
from tests.waiting import HANG_SECONDS

ITEMS = {f"i{offset:03}": float(offset) for offset in range(300)}


class HeldIndex:
    """A collection whose searches wait until `gate` is set; `calls` tells what they were asked."""

    def __init__(self, index: LocalCollectionIndex) -> None:
        self._index = index
        self.gate = threading.Event()
        self.calls: list[tuple[Search, list[float]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    def search(self, search: Search, queries: Matrix) -> Sequence[SearchResult]:
        self.calls.append((search, queries[:, 0].tolist()))
        assert self.gate.wait(HANG_SECONDS)
        return self._index.search(search, queries)


@pytest.fixture
def index() -> HeldIndex:
    filled = make_index(Table("collections/photos", [FLAT], Version("u", 0)))
    filled.write(batch(ITEMS, metadata='{"n": 1}'))
    filled.publish(Version("u", 1))
    return HeldIndex(filled)


@pytest.fixture
async def batcher() -> AsyncIterator[SearchBatcher]:
    async with BoundedExecutor("search", 1) as executor:
        yield SearchBatcher(executor, max_batch=4)


def told(found: SearchResult) -> list[tuple[str, float]]:
    return [(hit.item_id, hit.score) for hit in found.hits]


async def start(
    batcher: SearchBatcher, index: CollectionIndex, x: float, search: Search, tell: Any = told
) -> asyncio.Task[Any]:
    task = asyncio.create_task(batcher.search(index, search, np.array([x, 0], np.float32), tell))
    for _ in range(5):
        await asyncio.sleep(0)
    return task


def nearest(x: float, count: int) -> list[tuple[str, float]]:
    return sorted(((item, abs(offset - x)) for item, offset in ITEMS.items()), key=lambda hit: (hit[1], hit[0]))[:count]


async def test_those_that_wait_share_a_call_and_each_gets_as_many_as_it_wants(
    batcher: SearchBatcher, index: HeldIndex
) -> None:
    normalize_queries = [(1.0, 3), (5.0, 2), (9.0, 10), (2.5, 1), (4.0, 5), (7.0, 4)]
    tasks = [await start(batcher, index, x, Search("flat", top_k)) for x, top_k in normalize_queries]
    index.gate.set()
    assert await asyncio.gather(*tasks) == [nearest(x, top_k) for x, top_k in normalize_queries]
    assert [(search.top_k, queries) for search, queries in index.calls] == [
        (3, [1.0]),
        (10, [5.0, 9.0, 2.5, 4.0]),
        (4, [7.0]),
    ]


async def test_different_questions_are_not_mixed(batcher: SearchBatcher, index: HeldIndex) -> None:
    one, true = (Search("flat", 1, Comparison(("n",), Operator.EQUAL, (value,))) for value in (1, True))
    assert one == true, "Python says so, and the filters still differ"
    questions = [
        Search("flat", 1),
        one,
        true,
        Search("flat", 1, ids=frozenset(["i009"])),
        Search("flat", 1, score_limit=0.5),
        Search("flat", 1, exact=True),
        Search("flat", 200),
    ]
    block = await start(batcher, index, 0, Search("flat", 1))
    tasks = [await start(batcher, index, 5, search) for search in questions]
    index.gate.set()
    await block
    plain, filtered, none, among, limited, exact, many = await asyncio.gather(*tasks)
    assert plain == filtered == limited == exact == [("i005", 0.0)]
    assert (none, among, len(many)) == ([], [("i009", 4.0)], 200)
    assert [search for search, _ in index.calls[1:]] == questions


async def test_an_error_of_the_engine_reaches_those_who_asked_for_it_alone(
    batcher: SearchBatcher, index: HeldIndex
) -> None:
    tasks = [await start(batcher, index, 3, Search(space, 1)) for space in ("flat", "none", "flat", "none")]
    index.gate.set()
    first, wrong, third, wrong_too = await asyncio.gather(*tasks, return_exceptions=True)
    assert first == third == [("i003", 0.0)]
    assert {type(wrong).__name__, type(wrong_too).__name__} == {"SpaceNotFoundError"}


async def test_an_answer_that_cannot_be_told_is_the_callers_own_error(batcher: SearchBatcher, index: HeldIndex) -> None:
    def cannot(found: SearchResult) -> None:
        raise ZeroDivisionError

    block = await start(batcher, index, 0, Search("flat", 1))
    tasks = [await start(batcher, index, x, Search("flat", 1), tell) for x, tell in ((1, told), (2, cannot), (3, told))]
    index.gate.set()
    one, wrong, three = await asyncio.gather(*tasks, return_exceptions=True)
    await block
    assert (one, three) == ([("i001", 0.0)], [("i003", 0.0)])
    assert isinstance(wrong, ZeroDivisionError)


async def test_who_has_gone_is_not_searched_for(batcher: SearchBatcher, index: HeldIndex) -> None:
    block = await start(batcher, index, 0, Search("flat", 1))
    gone, stays = [await start(batcher, index, x, Search("flat", 1)) for x in (1, 2)]
    with deadline_in(0.02):
        late = await start(batcher, index, 3, Search("flat", 1))
    gone.cancel()
    await asyncio.sleep(0.05)
    index.gate.set()
    assert await stays == [("i002", 0.0)]
    with pytest.raises(DeadlineError):
        await late
    await block
    assert [queries for _, queries in index.calls] == [[0], [2]]


async def test_who_leaves_during_a_call_does_not_take_the_others_along(
    batcher: SearchBatcher, index: HeldIndex
) -> None:
    block = await start(batcher, index, 0, Search("flat", 1))
    gone, stays = [await start(batcher, index, x, Search("flat", 1)) for x in (1, 2)]
    index.gate.set()
    await block
    gone.cancel()
    assert await stays == [("i002", 0.0)]
