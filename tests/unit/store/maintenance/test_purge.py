"""Media go at once, but never under the feet of somebody who is about to refer to them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from services.common.content import ContentType
from services.common.errors import ArgumentError
from services.store.adapters.memory_media import MemoryMedia
from services.store.adapters.memory_tables import MemoryCatalog
from services.store.core.collections import Collections
from services.store.core.media_store import ExpectedUpload
from services.store.core.rows import Media
from services.store.core.table import Table
from services.store.maintenance.purge import Purge
from tests.unit.store.rows import SPACES, row


async def one(content: bytes) -> AsyncIterator[bytes]:
    yield content


class StoreFixture:
    """A store in memory whose time passes only when it is slept through."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.slept = 0.0
        self.media = MemoryMedia()
        self.collections = Collections(MemoryCatalog(), max_waiting_rows=100, clock=lambda: self.now)
        self.purge = Purge(self.collections, self.media, clock=lambda: self.now, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.now += timedelta(seconds=seconds)

    async def table(self) -> Table:
        return await self.collections.create("collections/a", SPACES)

    async def put(self) -> str:
        return (await self.media.put(one(b"bytes"), ExpectedUpload())).sha256


@pytest.fixture
def store() -> StoreFixture:
    return StoreFixture()


async def refer(table: Table, row_id: str, sha256: str) -> None:
    reference = Media(sha256, "image/png", 1)
    await table.write([row(row_id, content=ContentType.IMAGE, media=reference)], [], table.version)


async def test_media_long_unused_go_at_once(store: StoreFixture) -> None:
    await store.table()
    sha256 = await store.put()
    store.now += timedelta(hours=1)
    (media,) = (await store.purge.purge("collections/a", ["x"], [sha256])).media
    assert (media.kept_by, store.slept) == ("", 0)
    assert await store.media.touch([sha256]) == {}


async def test_media_used_just_now_wait_for_the_write_that_may_be_under_way(store: StoreFixture) -> None:
    await store.table()
    sha256 = await store.put()
    (media,) = (await store.purge.purge("collections/a", ["x"], [sha256])).media
    assert media.kept_by == ""
    assert 55 <= store.slept <= 65


async def test_a_write_that_comes_meanwhile_keeps_them(store: StoreFixture) -> None:
    table = await store.table()
    sha256 = await store.put()
    sleep = store.sleep

    async def late(seconds: float) -> None:
        await sleep(seconds)
        if 30 <= store.slept < 31:
            await refer(table, "late", sha256)

    store.purge = Purge(store.collections, store.media, clock=lambda: store.now, sleep=late)
    (media,) = (await store.purge.purge("collections/a", ["x"], [sha256])).media
    assert media.kept_by == "collections/a/items/late"
    assert await store.media.touch([sha256])


async def test_a_row_that_is_there_is_not_purged(store: StoreFixture) -> None:
    table = await store.table()
    await table.write([row("x")], [], table.version)
    with pytest.raises(ArgumentError):
        await store.purge.purge("collections/a", ["x"], [])


async def test_media_that_are_not_there_are_gone(store: StoreFixture) -> None:
    await store.table()
    purged = await store.purge.purge("collections/a", ["x"], ["ab" * 32, "ab" * 32])
    assert [media.kept_by for media in purged.media] == ["", ""]
