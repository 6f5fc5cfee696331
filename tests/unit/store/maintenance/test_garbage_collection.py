import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from services.common.content import ContentType
from services.store.adapters.memory_media import MemoryMedia
from services.store.adapters.memory_tables import MemoryCatalogue, MemoryTable
from services.store.core.collections import Collections
from services.store.core.media_store import Announcement
from services.store.core.rows import Media, Parts, Row
from services.store.core.table import Table
from services.store.maintenance.garbage_collection import GarbageCollector, Retention
from tests.unit.store.rows import PHOTOS, SPACES, row
from tests.waiting import HANG_SECONDS

DAY = timedelta(days=1)


class Clock:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


class Unreadable(MemoryTable):
    async def scan(self, parts: Parts) -> AsyncGenerator[list[Row], None]:
        raise OSError("no such device")
        yield []


async def one(content: bytes) -> AsyncIterator[bytes]:
    yield content


class TestCollectMedia:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def catalogue(self) -> MemoryCatalogue:
        return MemoryCatalogue()

    @pytest.fixture
    def media(self) -> MemoryMedia:
        return MemoryMedia()

    @pytest.fixture
    def collections(self, catalogue: MemoryCatalogue, clock: Clock) -> Collections:
        return Collections(catalogue, max_waiting_rows=100, clock=clock)

    @pytest.fixture
    def upkeep(self, collections: Collections, media: MemoryMedia, clock: Clock) -> GarbageCollector:
        return GarbageCollector(collections, media, Retention(DAY, DAY, DAY), clock=clock)

    async def refer(self, table: Table, row_id: str, sha256: str) -> None:
        reference = Media(sha256, "image/png", 1)
        await table.write([row(row_id, content=ContentType.IMAGE, media=reference)], [], table.version)

    async def put(self, media: MemoryMedia, content: bytes) -> str:
        return (await media.put(one(content), Announcement())).sha256

    async def test_what_a_row_of_any_collection_refers_to_is_kept(
        self, collections: Collections, media: MemoryMedia, upkeep: GarbageCollector, clock: Clock
    ) -> None:
        hashes = [await self.put(media, content) for content in (b"a", b"b", b"left")]
        await self.refer(await collections.create("collections/a", SPACES), "x", hashes[0])
        await self.refer(await collections.create("collections/b", SPACES), "y", hashes[1])
        clock.now += 2 * DAY
        assert await upkeep.collect_media() == 1
        assert set(await media.claim(hashes)) == set(hashes[:2])

    async def test_what_is_new_has_its_time(self, media: MemoryMedia, upkeep: GarbageCollector) -> None:
        sha256 = await self.put(media, b"a")
        assert await upkeep.collect_media() == 0
        assert await media.claim([sha256])

    async def test_what_a_removed_row_referred_to_goes(
        self, collections: Collections, media: MemoryMedia, upkeep: GarbageCollector, clock: Clock
    ) -> None:
        table = await collections.create("collections/a", SPACES)
        sha256 = await self.put(media, b"a")
        await self.refer(table, "x", sha256)
        await table.write([], ["x"], table.version)
        clock.now += 2 * DAY
        assert await upkeep.collect_media() == 1

    async def test_what_a_tagged_version_refers_to_is_kept(
        self, collections: Collections, media: MemoryMedia, upkeep: GarbageCollector, clock: Clock
    ) -> None:
        table = await collections.create("collections/a", SPACES)
        sha256 = await self.put(media, b"a")
        await self.refer(table, "x", sha256)
        await table.tag("before", table.version)
        await table.write([], ["x"], table.version)
        clock.now += 2 * DAY
        assert await upkeep.collect_media() == 0
        await table.untag("before")
        assert await upkeep.collect_media() == 1

    async def test_a_table_that_cannot_be_read_protects_everything(
        self, catalogue: MemoryCatalogue, media: MemoryMedia, upkeep: GarbageCollector, clock: Clock
    ) -> None:
        catalogue._tables[PHOTOS.name] = Unreadable(PHOTOS)
        sha256 = await self.put(media, b"a")
        clock.now += 2 * DAY
        with pytest.raises(OSError, match="no such device"):
            await upkeep.collect_media()
        assert await media.claim([sha256])

    async def test_what_is_claimed_during_the_search_is_kept(
        self, collections: Collections, upkeep: GarbageCollector, clock: Clock, media: MemoryMedia
    ) -> None:
        sha256 = await self.put(media, b"a")
        clock.now += 2 * DAY
        writer = await collections.create("collections/a", SPACES)

        class Claiming(MemoryTable):
            async def scan(self, parts: Parts) -> AsyncGenerator[list[Row], None]:
                media._used[sha256] = clock.now  # a write that comes once this table was looked through
                yield []

        late = Claiming(PHOTOS)
        collections._catalogue._tables[PHOTOS.name] = late  # type: ignore[attr-defined]  # it is a MemoryCatalogue
        assert writer.definition.name < PHOTOS.name
        assert await upkeep.collect_media() == 0
        assert await media.claim([sha256])

    async def test_it_goes_on_after_a_failure(
        self,
        catalogue: MemoryCatalogue,
        media: MemoryMedia,
        upkeep: GarbageCollector,
        clock: Clock,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        catalogue._tables[PHOTOS.name] = Unreadable(PHOTOS)
        sha256 = await self.put(media, b"a")
        clock.now += 2 * DAY
        async with upkeep.running(tidy_seconds=0.01, collect_seconds=0.01):
            async with asyncio.timeout(HANG_SECONDS):
                while "collecting unused media failed" not in caplog.text:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await catalogue.drop(PHOTOS.name)
            async with asyncio.timeout(HANG_SECONDS):
                while sha256 in media._objects:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
