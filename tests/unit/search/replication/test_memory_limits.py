"""A collection without room is refused by name, the others go on, and it recovers."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from services.common.concurrency.retry import Backoff
from services.common.vectors import Matrix, Metric
from services.common.versions import Version
from services.search.collection.collection import LocalCollectionIndex
from services.search.core.change_feed import ChangeBatch, Space, SpaceVectors
from services.search.core.errors import IndexTooLargeError
from services.search.core.vector_index import Numbers, Ranking, Selection
from services.search.engines.device.memory import DeviceMemory
from services.search.engines.memory.vector_index import MemoryIndex
from services.search.replication import replica as replica_module
from services.search.replication.replicas import Replicas
from tests.support.change_feed import MemoryChangeFeed
from tests.unit.search.feeds import FLAT, PHOTOS, batch
from tests.waiting import HANG_SECONDS

OTHERS = "collections/others"


class NarrowIndex:
    """An index in memory that plans a device's: a byte a slot."""

    engine = "narrow"

    def __init__(self, space: Space, memory: DeviceMemory, name: str = "") -> None:
        self._index = MemoryIndex(space.dimensions, space.metric)
        self._reservation = memory.reservation(name)

    @property
    def memory_bytes(self) -> int:
        return self._reservation.reserved_bytes

    def write(self, slots: Numbers, vectors: Matrix) -> None:
        self._reservation.grow(max(0, int(slots.max()) + 1 - self._reservation.reserved_bytes))
        self._index.write(slots, vectors)

    def search(self, queries: Matrix, top_k: int, selection: Selection) -> Sequence[Ranking]:
        return self._index.search(queries, top_k, selection)

    def rank(self, query: Matrix, top_k: int, slots: Numbers) -> Ranking:
        return self._index.rank(query, top_k, slots)

    def vectors(self, slots: Numbers) -> Matrix:
        return self._index.vectors(slots)


@pytest.fixture(autouse=True)
def _no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "CAPACITY_BACKOFF", Backoff(0.02, 0.02))


@pytest.fixture
def memory() -> DeviceMemory:
    return DeviceMemory("cuda", limit_bytes=100, free_bytes=None, workspace_bytes=0)


@pytest.fixture
def store() -> MemoryChangeFeed:
    feed = MemoryChangeFeed()
    for collection in (PHOTOS, OTHERS):
        feed.create(collection, [FLAT])
    return feed


@pytest.fixture
async def replicas(store: MemoryChangeFeed, memory: DeviceMemory) -> AsyncIterator[Replicas]:
    replicas = Replicas(
        store,
        lambda table: LocalCollectionIndex(table.spaces, lambda space: NarrowIndex(space, memory, table.collection)),
    )
    async with replicas.running(0.05, 5):
        yield replicas


def items(count: int, first: int = 0) -> ChangeBatch:
    return batch({f"item-{number}": number for number in range(first, first + count)})


async def found(replicas: Replicas, collection: str, version: Version | None) -> int:
    replica = await replicas.get(collection)
    async with asyncio.timeout(HANG_SECONDS):
        (state,) = (await replica.wait_for_version(version)).states()
    return state.vectors


async def until_ready(replicas: Replicas, collection: str, version: Version) -> int:
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            try:
                return await found(replicas, collection, version)
            except IndexTooLargeError:
                await asyncio.sleep(0.01)


async def test_a_collection_without_room_is_refused_with_the_bytes(store: MemoryChangeFeed, replicas: Replicas) -> None:
    large = store.commit(PHOTOS, items(101))
    small = store.commit(OTHERS, items(30))
    with pytest.raises(IndexTooLargeError) as caught:
        await found(replicas, PHOTOS, large)
    assert caught.value.metadata["needed_bytes"] == "101"
    assert await until_ready(replicas, OTHERS, small) == 30


async def test_those_who_wait_already_are_told(store: MemoryChangeFeed, replicas: Replicas) -> None:
    version = store.commit(PHOTOS, items(50))
    assert await found(replicas, PHOTOS, version) == 50
    waiting = asyncio.create_task(found(replicas, PHOTOS, Version(version.uid, version.number + 1)))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    store.commit(PHOTOS, items(60, first=50))
    with pytest.raises(IndexTooLargeError):
        await waiting


async def test_an_index_that_cannot_grow_answers_for_what_it_holds(store: MemoryChangeFeed, replicas: Replicas) -> None:
    before = store.commit(PHOTOS, items(80))
    assert await found(replicas, PHOTOS, before) == 80
    after = store.commit(PHOTOS, items(30, first=80))
    with pytest.raises(IndexTooLargeError):
        await found(replicas, PHOTOS, after)
    assert await found(replicas, PHOTOS, None) == 80
    assert await found(replicas, PHOTOS, before) == 80


async def test_failed_tries_leave_nothing_behind(
    store: MemoryChangeFeed, replicas: Replicas, memory: DeviceMemory
) -> None:
    assert await found(replicas, PHOTOS, store.commit(PHOTOS, items(40))) == 40
    refused = store.commit(PHOTOS, items(100, first=40))
    for _ in range(5):
        with pytest.raises(IndexTooLargeError):
            await found(replicas, PHOTOS, refused)
        await asyncio.sleep(0.03)
    assert memory.left_bytes() == 60


async def test_it_recovers_when_another_collection_makes_room(store: MemoryChangeFeed, replicas: Replicas) -> None:
    assert await found(replicas, OTHERS, store.commit(OTHERS, items(60))) == 60
    version = store.commit(PHOTOS, items(50))
    with pytest.raises(IndexTooLargeError):
        await found(replicas, PHOTOS, version)
    store.drop(OTHERS)
    assert await until_ready(replicas, PHOTOS, version) == 50


async def test_a_rebuild_without_room_is_refused_and_the_index_goes_on(
    store: MemoryChangeFeed, replicas: Replicas
) -> None:
    assert await found(replicas, PHOTOS, store.commit(PHOTOS, items(60))) == 60
    with pytest.raises(IndexTooLargeError):
        await (await replicas.get(PHOTOS)).rebuild()
    assert await until_ready(replicas, PHOTOS, store.commit(PHOTOS, items(20, first=60))) == 80


def test_a_part_that_one_space_cannot_take_leaves_no_row_and_no_slot() -> None:
    roomy, narrow = (
        DeviceMemory("cuda", limit_bytes=limit, free_bytes=None, workspace_bytes=0) for limit in (1000, 10)
    )
    spaces = [Space("wide", 2, Metric.EUCLIDEAN), Space("strict", 2, Metric.EUCLIDEAN)]
    index = LocalCollectionIndex(spaces, lambda space: NarrowIndex(space, roomy if space.name == "wide" else narrow))
    vectors = np.ones((20, 2), np.float32)
    both = {name: SpaceVectors(np.arange(20), vectors) for name in ("wide", "strict")}
    for _ in range(9):
        with pytest.raises(IndexTooLargeError):
            index.write(ChangeBatch([f"item-{number}" for number in range(20)], ["{}"] * 20, both))
        index.rollback()
    assert roomy.left_bytes() == 980
    index.write(ChangeBatch(["x"], ["{}"], {"strict": SpaceVectors(np.array([0]), vectors[:1])}, version=None))
    index.publish(Version("uid", 1))
    assert index.item_ids("strict")[0] == ["x"]
    assert index.item_ids("wide")[0] == []
