"""Indexes are saved as they change, and a process that starts goes on from there."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from services.common.concurrency.executors import BoundedExecutor
from services.common.versions import Version
from services.search.core.change_feed import ChangeBatch
from services.search.core.collection_index import CollectionIndex
from services.search.replication.replicas import Replicas
from services.search.snapshots.catalog import SnapshotCatalog
from services.search.snapshots.repository import SnapshotRepository
from services.search.snapshots.scheduler import Schedule, SnapshotScheduler
from tests.support.change_feed import MemoryChangeFeed
from tests.support.snapshot_store import MemorySnapshots
from tests.unit.search.feeds import FLAT, ORIGIN, PHOTOS, WeakFeed, batch, found_by, make_index
from tests.waiting import HANG_SECONDS

OFTEN = Schedule(between=0.01, load=5, stop=5)
SELDOM = Schedule(between=3600, load=5, stop=5)


@pytest.fixture
def store() -> MemoryChangeFeed:
    feed = MemoryChangeFeed()
    feed.create(PHOTOS, [FLAT])
    return feed


@pytest.fixture
def feed(store: MemoryChangeFeed) -> WeakFeed:
    return WeakFeed(store)


@pytest.fixture
def files() -> MemorySnapshots:
    return MemorySnapshots()


@asynccontextmanager
async def process(feed: WeakFeed, files: MemorySnapshots, schedule: Schedule = SELDOM) -> AsyncIterator[Replicas]:
    """A search service as a process runs it, from start to graceful stop."""
    async with BoundedExecutor("files", 3) as pool, BoundedExecutor("snapshots", 3) as executor:
        snapshot_scheduler = SnapshotScheduler(
            SnapshotRepository(SnapshotCatalog(files), pool), make_index, executor, schedule
        )
        replicas = Replicas(feed, make_index, snapshot_scheduler.restore)
        async with snapshot_scheduler.saving(feed, replicas), replicas.running(0.05, 5):
            yield replicas


async def wait_for_version(replicas: Replicas, version: Version | None) -> CollectionIndex:
    async with asyncio.timeout(HANG_SECONDS):
        return await (await replicas.get(PHOTOS)).wait_for_version(version)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while not true():  # noqa: ASYNC110  # what it waits for tells nobody
            await asyncio.sleep(0.01)


def held(index: CollectionIndex) -> dict[str, float]:
    return {hit.item_id: hit.score for hit in found_by(index, "flat", ORIGIN, 100, None).hits}


def saved(files: MemorySnapshots) -> list[Version]:
    return [snapshot.version for snapshot in SnapshotCatalog(files).snapshots(PHOTOS) if snapshot.complete]


async def test_after_a_stop_the_next_process_asks_only_for_what_changed(
    store: MemoryChangeFeed, feed: WeakFeed, files: MemorySnapshots
) -> None:
    async with process(feed, files) as replicas:
        before = store.commit(PHOTOS, batch({"x": 1, "y": 2}))
        await wait_for_version(replicas, before)
    later = store.commit(PHOTOS, batch({"z": 3}, deleted=["x"]))
    feed.resumed_after.clear()
    async with process(feed, files) as replicas:
        assert held(await wait_for_version(replicas, None)) == {"y": 2, "z": 3}, "it answers once it has caught up"
        assert held(await wait_for_version(replicas, later)) == {"y": 2, "z": 3}
    assert feed.resumed_after == [before]


async def test_what_changes_is_saved_from_time_to_time(
    store: MemoryChangeFeed, feed: WeakFeed, files: MemorySnapshots
) -> None:
    async with process(feed, files, OFTEN) as replicas:
        for number in range(3):
            version = store.commit(PHOTOS, batch({"x": number}))
            await wait_for_version(replicas, version)
            await until(lambda version=version: version in saved(files))  # type: ignore[misc]
        before = files.files("")
        await asyncio.sleep(0.1)
        assert files.files("") == before, "what does not change is not saved again"
    assert files.files("") == before


async def test_a_snapshot_that_the_store_cannot_go_on_from_is_rebuilt(
    store: MemoryChangeFeed, feed: WeakFeed, files: MemorySnapshots
) -> None:
    async with process(feed, files) as replicas:
        await wait_for_version(replicas, store.commit(PHOTOS, batch({"x": 1})))
    version = store.commit(PHOTOS, ChangeBatch(reset=True), batch({"y": 2}))
    async with process(feed, files) as replicas:
        assert held(await wait_for_version(replicas, version)) == {"y": 2}


async def test_a_stream_that_breaks_before_the_first_version_goes_on_from_the_snapshot(
    store: MemoryChangeFeed, feed: WeakFeed, files: MemorySnapshots
) -> None:
    async with process(feed, files) as replicas:
        before = store.commit(PHOTOS, batch({"x": 1}))
        await wait_for_version(replicas, before)
    version = store.commit(PHOTOS, batch({"y": 2}), batch({"z": 3}))
    feed.resumed_after.clear()
    feed.parts_to_come = 1
    feed.stray = batch({"ghost": 9})
    async with process(feed, files) as replicas:
        assert held(await wait_for_version(replicas, version)) == {"x": 1, "y": 2, "z": 3}
    assert set(feed.resumed_after) == {before}


async def test_a_collection_made_again_is_built_anew(
    store: MemoryChangeFeed, feed: WeakFeed, files: MemorySnapshots
) -> None:
    async with process(feed, files) as replicas:
        await wait_for_version(replicas, store.commit(PHOTOS, batch({"x": 1})))
    store.drop(PHOTOS)
    store.create(PHOTOS, [FLAT])
    version = store.commit(PHOTOS, batch({"y": 2}))
    async with process(feed, files) as replicas:
        assert held(await wait_for_version(replicas, version)) == {"y": 2}
    assert saved(files) == [version]


async def test_rebuilding_asks_the_store_for_everything_and_the_next_snapshot_is_of_that(
    store: MemoryChangeFeed, feed: WeakFeed, files: MemorySnapshots
) -> None:
    async with process(feed, files, OFTEN) as replicas:
        version = store.commit(PHOTOS, batch({"x": 1}))
        await wait_for_version(replicas, version)
        await until(lambda: version in saved(files))
        before = {file.path for file in files.files("")}
        feed.resumed_after.clear()
        assert await (await replicas.get(PHOTOS)).rebuild() == version
        assert feed.resumed_after == [None]
        await until(lambda: len(saved(files)) == 2 and saved(files)[0] == version)
        await until(lambda: bool({file.path for file in files.files("")} - before))


async def test_snapshots_of_dropped_collections_go(
    store: MemoryChangeFeed, feed: WeakFeed, files: MemorySnapshots
) -> None:
    async with process(feed, files, OFTEN) as replicas:
        version = store.commit(PHOTOS, batch({"x": 1}))
        await wait_for_version(replicas, version)
        await until(lambda: version in saved(files))
        store.drop(PHOTOS)
        await until(lambda: not files.files(""))


async def test_snapshots_of_collections_dropped_meanwhile_go_at_the_start(
    store: MemoryChangeFeed, feed: WeakFeed, files: MemorySnapshots
) -> None:
    async with process(feed, files) as replicas:
        await wait_for_version(replicas, store.commit(PHOTOS, batch({"x": 1})))
    assert files.files("")
    store.drop(PHOTOS)
    feed.down = True
    async with process(feed, files):
        await asyncio.sleep(0.1)
    assert files.files(""), "a store that is down has dropped nothing"
    feed.down = False
    async with process(feed, files):
        await until(lambda: not files.files(""))


async def test_processes_that_share_a_store_do_not_all_save(
    store: MemoryChangeFeed, feed: WeakFeed, files: MemorySnapshots
) -> None:
    version = store.commit(PHOTOS, batch({"x": 1}))
    async with process(feed, files, OFTEN) as one:
        await wait_for_version(one, version)
        await until(lambda: version in saved(files))
        before = files.files("")
        async with process(WeakFeed(store), files, OFTEN) as other:
            assert held(await wait_for_version(other, version)) == {"x": 1}
            await asyncio.sleep(0.1)
    assert files.files("") == before


async def test_saving_ends_in_time_when_the_process_stops(
    store: MemoryChangeFeed, feed: WeakFeed, files: MemorySnapshots
) -> None:
    async with process(feed, files, Schedule(3600, 5, 0.0)) as replicas:
        version = store.commit(PHOTOS, batch({"x": 1}))
        await wait_for_version(replicas, version)
        later = store.commit(PHOTOS, batch({"y": 1}))
        await wait_for_version(replicas, later)
    assert later not in saved(files)
    assert all(snapshot.complete for snapshot in SnapshotCatalog(files).snapshots(PHOTOS))
