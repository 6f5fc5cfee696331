"""Media go at once, but never under the feet of somebody who is about to refer to them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from services.common.content import ContentType
from services.common.errors import ArgumentError
from services.store.adapters.memory_media import MemoryMedia
from services.store.adapters.memory_tables import MemoryCatalogue
from services.store.core.collections import Collections
from services.store.core.media_store import Announcement
from services.store.core.rows import Media
from services.store.core.table import Table
from services.store.maintenance.purge import Purge
from tests.unit.store.rows import SPACES, row


async def one(content: bytes) -> AsyncIterator[bytes]:
    yield content


class Shop:
    """A store in memory whose time passes only when it is slept through."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.slept = 0.0
        self.media = MemoryMedia()
        self.collections = Collections(MemoryCatalogue(), max_waiting_rows=100, clock=lambda: self.now)
        self.purger = Purge(self.collections, self.media, clock=lambda: self.now, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.now += timedelta(seconds=seconds)

    async def table(self) -> Table:
        return await self.collections.create("collections/a", SPACES)

    async def put(self) -> str:
        return (await self.media.put(one(b"bytes"), Announcement())).sha256


@pytest.fixture
def shop() -> Shop:
    return Shop()


async def refer(table: Table, row_id: str, sha256: str) -> None:
    reference = Media(sha256, "image/png", 1)
    await table.write([row(row_id, content=ContentType.IMAGE, media=reference)], [], table.version)


async def test_media_long_unused_go_at_once(shop: Shop) -> None:
    await shop.table()
    sha256 = await shop.put()
    shop.now += timedelta(hours=1)
    (media,) = (await shop.purger.purge("collections/a", ["x"], [sha256])).media
    assert (media.kept_by, shop.slept) == ("", 0)
    assert await shop.media.claim([sha256]) == {}


async def test_media_used_just_now_wait_for_the_write_that_may_be_under_way(shop: Shop) -> None:
    await shop.table()
    sha256 = await shop.put()
    (media,) = (await shop.purger.purge("collections/a", ["x"], [sha256])).media
    assert media.kept_by == ""
    assert 55 <= shop.slept <= 65


async def test_a_write_that_comes_meanwhile_keeps_them(shop: Shop) -> None:
    table = await shop.table()
    sha256 = await shop.put()
    asleep = shop.sleep

    async def late(seconds: float) -> None:
        await asleep(seconds)
        if 30 <= shop.slept < 31:
            await refer(table, "late", sha256)

    shop.purger = Purge(shop.collections, shop.media, clock=lambda: shop.now, sleep=late)
    (media,) = (await shop.purger.purge("collections/a", ["x"], [sha256])).media
    assert media.kept_by == "collections/a/items/late"
    assert await shop.media.claim([sha256])


async def test_a_row_that_is_there_is_not_purged(shop: Shop) -> None:
    table = await shop.table()
    await table.write([row("x")], [], table.version)
    with pytest.raises(ArgumentError):
        await shop.purger.purge("collections/a", ["x"], [])


async def test_media_that_are_not_there_are_gone(shop: Shop) -> None:
    await shop.table()
    purged = await shop.purger.purge("collections/a", ["x"], ["ab" * 32, "ab" * 32])
    assert [media.kept_by for media in purged.media] == ["", ""]
