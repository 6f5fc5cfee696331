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
from services.search.replication import replica as replica_module
from services.search.replication.replica import Replica
from tests.support.change_feed import MemoryChangeFeed
from tests.unit.search.feeds import DEEP, FLAT, ORIGIN, PHOTOS, WeakFeed, batch, found_by, make_index
from tests.waiting import HANG_SECONDS

HNSW = IndexConfig(Hnsw(m=48))


@pytest.fixture(autouse=True)
def _no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "BACKOFF", Backoff(0.02, 0.02))


@pytest.fixture
def store() -> MemoryChangeFeed:
    feed = MemoryChangeFeed()
    feed.create(PHOTOS, [FLAT])
    return feed


@pytest.fixture
def feed(store: MemoryChangeFeed) -> WeakFeed:
    return WeakFeed(store)


@pytest.fixture
async def replica(feed: WeakFeed) -> AsyncIterator[Replica]:
    replica = Replica(PHOTOS, feed, make_index)
    task = asyncio.create_task(replica.run())
    yield replica
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def wait_for_version(replica: Replica, version: Version | None) -> CollectionIndex:
    async with asyncio.timeout(HANG_SECONDS):
        return await replica.wait_for_version(version)


def held(index: CollectionIndex) -> dict[str, float]:
    return {hit.item_id: hit.score for hit in found_by(index, "flat", ORIGIN, 100, None).hits}


async def test_it_reaches_the_version_asked_for(store: MemoryChangeFeed, replica: Replica) -> None:
    store.commit(PHOTOS, batch({"x": 1}))
    assert held(await wait_for_version(replica, store.commit(PHOTOS, batch({"y": 2}, deleted=["x"])))) == {"y": 2}


async def test_an_empty_collection_has_a_version(store: MemoryChangeFeed, replica: Replica) -> None:
    assert held(await wait_for_version(replica, None)) == {}


async def test_a_version_to_come_is_waited_for(store: MemoryChangeFeed, replica: Replica) -> None:
    applied = await wait_for_version(replica, None)
    assert applied.version
    waiting = asyncio.create_task(wait_for_version(replica, Version(applied.version.uid, 1)))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    store.commit(PHOTOS, batch({"x": 1}))
    assert held(await waiting) == {"x": 1}


async def test_half_a_change_is_never_seen_and_then_resumed(
    store: MemoryChangeFeed, feed: WeakFeed, replica: Replica
) -> None:
    first = store.commit(PHOTOS, batch({"x": 1}))
    index = await wait_for_version(replica, first)
    feed.parts_to_come = 0
    feed.stray = batch({"ghost": 9})
    second = store.commit(PHOTOS, batch({"y": 2}), batch({"z": 3}, deleted=["x"]))
    assert held(index) in ({"x": 1}, {"y": 2, "z": 3})
    assert held(await wait_for_version(replica, second)) == {"y": 2, "z": 3}
    assert feed.resumed_after == [None, first]
    assert held(await wait_for_version(replica, store.commit(PHOTOS, batch({"w": 4})))) == {"w": 4, "y": 2, "z": 3}


async def test_while_the_store_is_down_the_last_index_answers(
    store: MemoryChangeFeed, feed: WeakFeed, replica: Replica
) -> None:
    await wait_for_version(replica, store.commit(PHOTOS, batch({"x": 1})))
    feed.down = True
    later = store.commit(PHOTOS, batch({"y": 2}))
    await asyncio.sleep(0.1)
    assert held(await wait_for_version(replica, None)) == {"x": 1}
    waiting = asyncio.create_task(wait_for_version(replica, later))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    feed.down = False
    assert held(await waiting) == {"x": 1, "y": 2}


async def test_a_store_that_is_down_at_first_is_waited_for(store: MemoryChangeFeed, feed: WeakFeed) -> None:
    feed.down = True
    replica = Replica(PHOTOS, feed, make_index)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(replica.run())
        await asyncio.sleep(0.05)
        feed.down = False
        assert held(await wait_for_version(replica, None)) == {}
        running.cancel()


async def test_after_a_reset_only_what_follows_is_held(store: MemoryChangeFeed, replica: Replica) -> None:
    old = await wait_for_version(replica, store.commit(PHOTOS, batch({"x": 1})))
    version = store.commit(PHOTOS, ChangeBatch(reset=True), batch({"y": 2}))
    assert held(await wait_for_version(replica, version)) == {"y": 2}
    assert held(old) == {"x": 1}


async def test_dropping_ends_it_and_tells_those_who_wait(store: MemoryChangeFeed, replica: Replica) -> None:
    index = await wait_for_version(replica, None)
    assert index.version
    waiting = asyncio.create_task(wait_for_version(replica, replace(index.version, number=99)))
    await asyncio.sleep(0.05)
    store.drop(PHOTOS)
    with pytest.raises(CollectionNotFoundError):
        await waiting
    assert replica.index is None


async def test_a_collection_made_again_with_other_spaces_is_followed_anew(
    store: MemoryChangeFeed, feed: WeakFeed, replica: Replica
) -> None:
    await wait_for_version(replica, store.commit(PHOTOS, batch({"x": 1})))
    feed.down = True
    store.drop(PHOTOS)
    store.create(PHOTOS, [DEEP])
    vectors = {"deep": SpaceVectors(np.array([0]), np.ones((1, 3), np.float32))}
    version = store.commit(PHOTOS, ChangeBatch(["y"], ["{}"], vectors))
    await asyncio.sleep(0.05)
    feed.down = False
    index = await wait_for_version(replica, version)
    assert [state.space for state in index.states()] == [DEEP]
    assert [hit.item_id for hit in found_by(index, "deep", np.ones(3, np.float32), 5, None).hits] == ["y"]


async def test_a_feed_that_does_not_tell_of_the_drop_is_left_when_a_version_shows_it(
    store: MemoryChangeFeed, feed: WeakFeed
) -> None:
    feed.deaf = True
    replica = Replica(PHOTOS, feed, make_index)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(replica.run())
        before = store.commit(PHOTOS, batch({"x": 1}))
        await wait_for_version(replica, before)
        store.drop(PHOTOS)
        store.create(PHOTOS, [FLAT])
        version = store.commit(PHOTOS, batch({"y": 2}))
        assert held(await wait_for_version(replica, None)) == {"x": 1}
        assert held(await wait_for_version(replica, version)) == {"y": 2}
        with pytest.raises(VersionUnknownError):
            await wait_for_version(replica, before)
        running.cancel()


async def test_a_foreign_version_is_not_judged_without_the_store(
    store: MemoryChangeFeed, feed: WeakFeed, replica: Replica
) -> None:
    await wait_for_version(replica, None)
    with pytest.raises(VersionUnknownError) as caught:
        await wait_for_version(replica, Version("other", 1))
    assert caught.value.metadata == {"collection": PHOTOS, "version": "other.1"}
    feed.down = True
    with pytest.raises(ServiceUnavailableError):
        await wait_for_version(replica, Version("other", 1))


async def test_after_an_unexpected_error_the_index_is_built_anew(
    store: MemoryChangeFeed, feed: WeakFeed, replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    old = await wait_for_version(replica, store.commit(PHOTOS, batch({"x": 1})))
    feed.error = ZeroDivisionError("a bug")
    feed.parts_to_come = 0
    index = await wait_for_version(replica, store.commit(PHOTOS, batch({"y": 2})))
    async with asyncio.timeout(HANG_SECONDS):
        while index is old:  # the first that holds the version may be the old one, if the bug came after
            index = await wait_for_version(replica, store.commit(PHOTOS, batch({"y": 2})))
    assert held(index) == {"x": 1, "y": 2}
    assert feed.resumed_after == [None, None]
    assert "ZeroDivisionError" in caplog.text


async def test_a_rebuilt_index_replaces_the_one_that_answers(store: MemoryChangeFeed, replica: Replica) -> None:
    version = store.commit(PHOTOS, batch({"x": 1, "y": 2}))
    old = await wait_for_version(replica, version)
    old.write(batch({}, deleted=["x"]))
    old.write(batch({"stray": 7}))
    old.publish(version)
    assert held(old) == {"y": 2, "stray": 7}
    async with asyncio.timeout(HANG_SECONDS):
        assert await replica.rebuild() == version
    new = await wait_for_version(replica, version)
    assert new is not old
    assert held(new) == {"x": 1, "y": 2}
    assert held(await wait_for_version(replica, store.commit(PHOTOS, batch({"z": 3})))) == {"x": 1, "y": 2, "z": 3}


async def test_a_rebuild_outlives_a_store_that_fails(store: MemoryChangeFeed, feed: WeakFeed, replica: Replica) -> None:
    version = store.commit(PHOTOS, batch({"x": 1}))
    old = await wait_for_version(replica, version)
    feed.parts_to_come = 0
    async with asyncio.timeout(HANG_SECONDS):
        assert await replica.rebuild() == version
    assert await wait_for_version(replica, version) is not old


def configs(index: CollectionIndex) -> dict[str, IndexConfig]:
    return {state.space.name: state.config for state in index.states()}


async def test_a_new_index_of_a_space_is_told_and_is_a_version(store: MemoryChangeFeed, replica: Replica) -> None:
    index = await wait_for_version(replica, store.commit(PHOTOS, batch({"x": 1})))
    assert configs(index) == {"flat": IndexConfig()}
    configured = store.configure(PHOTOS, "flat", HNSW)
    assert await wait_for_version(replica, configured) is index
    assert configs(index) == {"flat": HNSW}
    assert held(index) == {"x": 1}


async def test_what_is_built_anew_has_the_newest_choice_of_index(
    store: MemoryChangeFeed, feed: WeakFeed, replica: Replica
) -> None:
    await wait_for_version(replica, store.commit(PHOTOS, batch({"x": 1})))
    old = await wait_for_version(replica, store.configure(PHOTOS, "flat", HNSW))
    made: list[IndexConfig] = []

    def making(table: Table) -> CollectionIndex:
        made.extend(space.config for space in table.spaces)
        return make_index(table)

    replica._make_index = making  # what the choice is when the index is made, not only once it is told
    reset = await wait_for_version(replica, store.commit(PHOTOS, ChangeBatch(reset=True), batch({"y": 2})))
    assert (made, configs(reset), held(reset)) == ([HNSW], {"flat": HNSW}, {"y": 2})
    assert reset is not old
    async with asyncio.timeout(HANG_SECONDS):
        await replica.rebuild()
    assert made == [HNSW, HNSW]


async def test_a_choice_made_while_the_store_was_away_is_told(
    store: MemoryChangeFeed, feed: WeakFeed, replica: Replica
) -> None:
    await wait_for_version(replica, store.commit(PHOTOS, batch({"x": 1})))
    feed.down = True
    store.commit(PHOTOS, batch({"y": 1}))
    configured = store.configure(PHOTOS, "flat", HNSW)
    feed.down = False
    assert configs(await wait_for_version(replica, configured)) == {"flat": HNSW}


async def test_spaces_of_another_collection_do_not_fit(
    store: MemoryChangeFeed, feed: WeakFeed, replica: Replica
) -> None:
    index = await wait_for_version(replica, store.commit(PHOTOS, batch({"x": 1})))
    assert index.version
    feed.stray = ChangeBatch(version=index.version, spaces=[replace(FLAT, metric=Metric.COSINE)])
    later = store.commit(PHOTOS, batch({"y": 2}))
    assert await wait_for_version(replica, later) is index
    assert index.space("flat").metric is FLAT.metric


async def test_it_is_behind_while_a_change_is_on_its_way(
    store: MemoryChangeFeed, feed: WeakFeed, replica: Replica
) -> None:
    await wait_for_version(replica, store.commit(PHOTOS, batch({"x": 1})))
    assert replica.lag_seconds == 0
    feed.parts_to_come = 1
    later = store.commit(PHOTOS, batch({"y": 2}), batch({"z": 3}))
    await _down_after_a_part(feed)
    assert replica.lag_seconds > 0
    feed.down = False
    await wait_for_version(replica, later)
    assert replica.lag_seconds == 0


async def test_it_is_behind_a_version_it_was_told_of_while_its_stream_is_down(
    store: MemoryChangeFeed, feed: WeakFeed, replica: Replica
) -> None:
    await wait_for_version(replica, store.commit(PHOTOS, batch({"x": 1})))
    feed.down = True
    later = store.commit(PHOTOS, batch({"y": 2}))
    replica.observe(later)
    await asyncio.sleep(0.01)
    assert replica.lag_seconds >= 0.01
    feed.down = False
    await wait_for_version(replica, later)
    assert replica.lag_seconds == 0


async def _down_after_a_part(feed: WeakFeed) -> None:
    """Let one part of a change through, then be down."""
    while feed.parts_to_come:  # noqa: ASYNC110  # nobody sets an event for it
        await asyncio.sleep(0.001)
    feed.down = True
    await asyncio.sleep(0.02)
