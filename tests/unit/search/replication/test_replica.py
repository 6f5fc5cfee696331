"""A follower applies whole changes, outlives trouble, and knows a collection made again from the one before."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from services.common.concurrency.retry import Backoff
from services.common.errors import CollectionNotFoundError, ServiceUnavailableError, VersionUnknownError
from services.common.index_config import Hnsw, IndexConfig
from services.common.vectors import Metric
from services.common.versions import Version
from services.search.core.change_feed import ChangeBatch, SpaceVectors, Table
from services.search.core.collection_index import CollectionIndex
from services.search.replication import replica as follower_module
from services.search.replication.replica import Replica
from tests.support.change_feed import MemoryChangeFeed
from tests.unit.search.feeds import DEEP, FLAT, ORIGIN, PHOTOS, WeakFeed, found_by, make_index, part
from tests.waiting import HANG_SECONDS

HNSW = IndexConfig(Hnsw(m=48))


@pytest.fixture(autouse=True)
def _no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "BACKOFF", Backoff(0.02, 0.02))


@pytest.fixture
def store() -> MemoryChangeFeed:
    feed = MemoryChangeFeed()
    feed.create(PHOTOS, [FLAT])
    return feed


@pytest.fixture
def feed(store: MemoryChangeFeed) -> WeakFeed:
    return WeakFeed(store)


@pytest.fixture
async def follower(feed: WeakFeed) -> AsyncIterator[Replica]:
    follower = Replica(PHOTOS, feed, make_index)
    task = asyncio.create_task(follower.run())
    yield follower
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def reached(follower: Replica, version: Version | None) -> CollectionIndex:
    async with asyncio.timeout(HANG_SECONDS):
        return await follower.reached(version)


def held(index: CollectionIndex) -> dict[str, float]:
    return {hit.item_id: hit.score for hit in found_by(index, "flat", ORIGIN, 100, None).hits}


async def test_it_reaches_the_version_asked_for(store: MemoryChangeFeed, follower: Replica) -> None:
    store.commit(PHOTOS, part({"x": 1}))
    assert held(await reached(follower, store.commit(PHOTOS, part({"y": 2}, deleted=["x"])))) == {"y": 2}


async def test_an_empty_collection_has_a_version(store: MemoryChangeFeed, follower: Replica) -> None:
    assert held(await reached(follower, None)) == {}


async def test_a_version_to_come_is_waited_for(store: MemoryChangeFeed, follower: Replica) -> None:
    applied = await reached(follower, None)
    assert applied.version
    waiting = asyncio.create_task(reached(follower, Version(applied.version.uid, 1)))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    store.commit(PHOTOS, part({"x": 1}))
    assert held(await waiting) == {"x": 1}


async def test_half_a_change_is_never_seen_and_then_resumed(
    store: MemoryChangeFeed, feed: WeakFeed, follower: Replica
) -> None:
    first = store.commit(PHOTOS, part({"x": 1}))
    index = await reached(follower, first)
    feed.parts_to_come = 0
    feed.stray = part({"ghost": 9})
    second = store.commit(PHOTOS, part({"y": 2}), part({"z": 3}, deleted=["x"]))
    assert held(index) in ({"x": 1}, {"y": 2, "z": 3})
    assert held(await reached(follower, second)) == {"y": 2, "z": 3}
    assert feed.resumed_after == [None, first]
    assert held(await reached(follower, store.commit(PHOTOS, part({"w": 4})))) == {"w": 4, "y": 2, "z": 3}


async def test_while_the_store_is_down_the_last_index_answers(
    store: MemoryChangeFeed, feed: WeakFeed, follower: Replica
) -> None:
    await reached(follower, store.commit(PHOTOS, part({"x": 1})))
    feed.down = True
    later = store.commit(PHOTOS, part({"y": 2}))
    await asyncio.sleep(0.1)
    assert held(await reached(follower, None)) == {"x": 1}
    waiting = asyncio.create_task(reached(follower, later))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    feed.down = False
    assert held(await waiting) == {"x": 1, "y": 2}


async def test_a_store_that_is_down_at_first_is_waited_for(store: MemoryChangeFeed, feed: WeakFeed) -> None:
    feed.down = True
    follower = Replica(PHOTOS, feed, make_index)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(follower.run())
        await asyncio.sleep(0.05)
        feed.down = False
        assert held(await reached(follower, None)) == {}
        running.cancel()


async def test_after_a_reset_only_what_follows_is_held(store: MemoryChangeFeed, follower: Replica) -> None:
    old = await reached(follower, store.commit(PHOTOS, part({"x": 1})))
    version = store.commit(PHOTOS, ChangeBatch(reset=True), part({"y": 2}))
    assert held(await reached(follower, version)) == {"y": 2}
    assert held(old) == {"x": 1}


async def test_dropping_ends_it_and_tells_those_who_wait(store: MemoryChangeFeed, follower: Replica) -> None:
    index = await reached(follower, None)
    assert index.version
    waiting = asyncio.create_task(reached(follower, replace(index.version, number=99)))
    await asyncio.sleep(0.05)
    store.drop(PHOTOS)
    with pytest.raises(CollectionNotFoundError):
        await waiting
    assert follower.index is None


async def test_a_collection_made_again_with_other_spaces_is_followed_anew(
    store: MemoryChangeFeed, feed: WeakFeed, follower: Replica
) -> None:
    await reached(follower, store.commit(PHOTOS, part({"x": 1})))
    feed.down = True
    store.drop(PHOTOS)
    store.create(PHOTOS, [DEEP])
    vectors = {"deep": SpaceVectors(np.array([0]), np.ones((1, 3), np.float32))}
    version = store.commit(PHOTOS, ChangeBatch(["y"], ["{}"], vectors))
    await asyncio.sleep(0.05)
    feed.down = False
    index = await reached(follower, version)
    assert [state.space for state in index.states()] == [DEEP]
    assert [hit.item_id for hit in found_by(index, "deep", np.ones(3, np.float32), 5, None).hits] == ["y"]


async def test_a_feed_that_does_not_tell_of_the_drop_is_left_when_a_version_shows_it(
    store: MemoryChangeFeed, feed: WeakFeed
) -> None:
    feed.deaf = True
    follower = Replica(PHOTOS, feed, make_index)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(follower.run())
        before = store.commit(PHOTOS, part({"x": 1}))
        await reached(follower, before)
        store.drop(PHOTOS)
        store.create(PHOTOS, [FLAT])
        version = store.commit(PHOTOS, part({"y": 2}))
        assert held(await reached(follower, None)) == {"x": 1}
        assert held(await reached(follower, version)) == {"y": 2}
        with pytest.raises(VersionUnknownError):
            await reached(follower, before)
        running.cancel()


async def test_a_foreign_version_is_not_judged_without_the_store(
    store: MemoryChangeFeed, feed: WeakFeed, follower: Replica
) -> None:
    await reached(follower, None)
    with pytest.raises(VersionUnknownError) as caught:
        await reached(follower, Version("other", 1))
    assert caught.value.metadata == {"collection": PHOTOS, "version": "other.1"}
    feed.down = True
    with pytest.raises(ServiceUnavailableError):
        await reached(follower, Version("other", 1))


async def test_after_an_unexpected_error_the_index_is_built_anew(
    store: MemoryChangeFeed, feed: WeakFeed, follower: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    old = await reached(follower, store.commit(PHOTOS, part({"x": 1})))
    feed.error = ZeroDivisionError("a bug")
    feed.parts_to_come = 0
    index = await reached(follower, store.commit(PHOTOS, part({"y": 2})))
    async with asyncio.timeout(HANG_SECONDS):
        while index is old:  # the first that holds the version may be the old one, if the bug came after
            index = await reached(follower, store.commit(PHOTOS, part({"y": 2})))
    assert held(index) == {"x": 1, "y": 2}
    assert feed.resumed_after == [None, None]
    assert "ZeroDivisionError" in caplog.text


async def test_a_rebuilt_index_replaces_the_one_that_answers(store: MemoryChangeFeed, follower: Replica) -> None:
    version = store.commit(PHOTOS, part({"x": 1, "y": 2}))
    old = await reached(follower, version)
    old.write(part({}, deleted=["x"]))
    old.write(part({"stray": 7}))
    old.publish(version)
    assert held(old) == {"y": 2, "stray": 7}
    async with asyncio.timeout(HANG_SECONDS):
        assert await follower.rebuilt() == version
    new = await reached(follower, version)
    assert new is not old
    assert held(new) == {"x": 1, "y": 2}
    assert held(await reached(follower, store.commit(PHOTOS, part({"z": 3})))) == {"x": 1, "y": 2, "z": 3}


async def test_a_rebuild_outlives_a_store_that_fails(
    store: MemoryChangeFeed, feed: WeakFeed, follower: Replica
) -> None:
    version = store.commit(PHOTOS, part({"x": 1}))
    old = await reached(follower, version)
    feed.parts_to_come = 0
    async with asyncio.timeout(HANG_SECONDS):
        assert await follower.rebuilt() == version
    assert await reached(follower, version) is not old


def configs(index: CollectionIndex) -> dict[str, IndexConfig]:
    return {state.space.name: state.config for state in index.states()}


async def test_a_new_index_of_a_space_is_told_and_is_a_version(store: MemoryChangeFeed, follower: Replica) -> None:
    index = await reached(follower, store.commit(PHOTOS, part({"x": 1})))
    assert configs(index) == {"flat": IndexConfig()}
    configured = store.configure(PHOTOS, "flat", HNSW)
    assert await reached(follower, configured) is index
    assert configs(index) == {"flat": HNSW}
    assert held(index) == {"x": 1}


async def test_what_is_built_anew_has_the_newest_choice_of_index(
    store: MemoryChangeFeed, feed: WeakFeed, follower: Replica
) -> None:
    await reached(follower, store.commit(PHOTOS, part({"x": 1})))
    old = await reached(follower, store.configure(PHOTOS, "flat", HNSW))
    made: list[IndexConfig] = []

    def making(table: Table) -> CollectionIndex:
        made.extend(space.config for space in table.spaces)
        return make_index(table)

    follower._make_index = making  # what the choice is when the index is made, not only once it is told
    reset = await reached(follower, store.commit(PHOTOS, ChangeBatch(reset=True), part({"y": 2})))
    assert (made, configs(reset), held(reset)) == ([HNSW], {"flat": HNSW}, {"y": 2})
    assert reset is not old
    async with asyncio.timeout(HANG_SECONDS):
        await follower.rebuilt()
    assert made == [HNSW, HNSW]


async def test_a_choice_made_while_the_store_was_away_is_told(
    store: MemoryChangeFeed, feed: WeakFeed, follower: Replica
) -> None:
    await reached(follower, store.commit(PHOTOS, part({"x": 1})))
    feed.down = True
    store.commit(PHOTOS, part({"y": 1}))
    configured = store.configure(PHOTOS, "flat", HNSW)
    feed.down = False
    assert configs(await reached(follower, configured)) == {"flat": HNSW}


async def test_spaces_of_another_collection_do_not_fit(
    store: MemoryChangeFeed, feed: WeakFeed, follower: Replica
) -> None:
    index = await reached(follower, store.commit(PHOTOS, part({"x": 1})))
    assert index.version
    feed.stray = ChangeBatch(version=index.version, spaces=[replace(FLAT, metric=Metric.COSINE)])
    later = store.commit(PHOTOS, part({"y": 2}))
    assert await reached(follower, later) is index
    assert index.space("flat").metric is FLAT.metric


async def test_it_is_behind_while_a_change_is_on_its_way(
    store: MemoryChangeFeed, feed: WeakFeed, follower: Replica
) -> None:
    await reached(follower, store.commit(PHOTOS, part({"x": 1})))
    assert follower.lag_seconds == 0
    feed.parts_to_come = 1
    later = store.commit(PHOTOS, part({"y": 2}), part({"z": 3}))
    await _down_after_a_part(feed)
    assert follower.lag_seconds > 0
    feed.down = False
    await reached(follower, later)
    assert follower.lag_seconds == 0


async def test_it_is_behind_a_version_it_was_told_of_while_its_stream_is_down(
    store: MemoryChangeFeed, feed: WeakFeed, follower: Replica
) -> None:
    await reached(follower, store.commit(PHOTOS, part({"x": 1})))
    feed.down = True
    later = store.commit(PHOTOS, part({"y": 2}))
    follower.observe(later)
    await asyncio.sleep(0.01)
    assert follower.lag_seconds >= 0.01
    feed.down = False
    await reached(follower, later)
    assert follower.lag_seconds == 0


async def _down_after_a_part(feed: WeakFeed) -> None:
    """Let one part of a change through, then be down."""
    while feed.parts_to_come:  # noqa: ASYNC110  # nobody sets an event for it
        await asyncio.sleep(0.001)
    feed.down = True
    await asyncio.sleep(0.02)
