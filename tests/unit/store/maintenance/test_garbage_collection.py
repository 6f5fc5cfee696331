import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from services.common.content import ContentType
from services.store.adapters.memory_media import MemoryMedia
from services.store.adapters.memory_tables import MemoryCatalog, MemoryTable
from services.store.core.collections import Collections
from services.store.core.media_store import ExpectedUpload
from services.store.core.rows import Media, Row, RowFields
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


class UnreadableTable(MemoryTable):
    async def scan(self, fields: RowFields) -> AsyncGenerator[list[Row], None]:
        raise OSError("no such device")
        yield []


async def one(content: bytes) -> AsyncIterator[bytes]:
    yield content


class TestCollectMedia:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def catalog(self) -> MemoryCatalog:
        return MemoryCatalog()

    @pytest.fixture
    def media(self) -> MemoryMedia:
        return MemoryMedia()

    @pytest.fixture
    def collections(self, catalog: MemoryCatalog, clock: Clock) -> Collections:
        return Collections(catalog, max_waiting_rows=100, clock=clock)

    @pytest.fixture
    def collector(self, collections: Collections, media: MemoryMedia, clock: Clock) -> GarbageCollector:
        return GarbageCollector(collections, media, Retention(DAY, DAY, DAY), clock=clock)

    async def refer(self, table: Table, row_id: str, sha256: str) -> None:
        reference = Media(sha256, "image/png", 1)
        await table.write([row(row_id, content=ContentType.IMAGE, media=reference)], [], table.version)

    async def put(self, media: MemoryMedia, content: bytes) -> str:
        return (await media.put(one(content), ExpectedUpload())).sha256

    async def test_what_a_row_of_any_collection_refers_to_is_kept(
        self, collections: Collections, media: MemoryMedia, collector: GarbageCollector, clock: Clock
    ) -> None:
        hashes = [await self.put(media, content) for content in (b"a", b"b", b"left")]
        await self.refer(await collections.create("collections/a", SPACES), "x", hashes[0])
        await self.refer(await collections.create("collections/b", SPACES), "y", hashes[1])
        clock.now += 2 * DAY
        assert await collector.collect_media() == 1
        assert set(await media.touch(hashes)) == set(hashes[:2])

    async def test_what_is_new_has_its_time(self, media: MemoryMedia, collector: GarbageCollector) -> None:
        sha256 = await self.put(media, b"a")
        assert await collector.collect_media() == 0
        assert await media.touch([sha256])

    async def test_what_a_removed_row_referred_to_goes(
        self, collections: Collections, media: MemoryMedia, collector: GarbageCollector, clock: Clock
    ) -> None:
        table = await collections.create("collections/a", SPACES)
        sha256 = await self.put(media, b"a")
        await self.refer(table, "x", sha256)
        await table.write([], ["x"], table.version)
        clock.now += 2 * DAY
        assert await collector.collect_media() == 1

    async def test_what_a_tagged_version_refers_to_is_kept(
        self, collections: Collections, media: MemoryMedia, collector: GarbageCollector, clock: Clock
    ) -> None:
        table = await collections.create("collections/a", SPACES)
        sha256 = await self.put(media, b"a")
        await self.refer(table, "x", sha256)
        await table.create_tag("before", table.version)
        await table.write([], ["x"], table.version)
        clock.now += 2 * DAY
        assert await collector.collect_media() == 0
        await table.delete_tag("before")
        assert await collector.collect_media() == 1

    async def test_a_table_that_cannot_be_read_protects_everything(
        self, catalog: MemoryCatalog, media: MemoryMedia, collector: GarbageCollector, clock: Clock
    ) -> None:
        catalog._tables[PHOTOS.name] = UnreadableTable(PHOTOS)
        sha256 = await self.put(media, b"a")
        clock.now += 2 * DAY
        with pytest.raises(OSError, match="no such device"):
            await collector.collect_media()
        assert await media.touch([sha256])

    async def test_what_is_claimed_during_the_search_is_kept(
        self, collections: Collections, collector: GarbageCollector, clock: Clock, media: MemoryMedia
    ) -> None:
        sha256 = await self.put(media, b"a")
        clock.now += 2 * DAY
        writer = await collections.create("collections/a", SPACES)

        class TouchingTable(MemoryTable):
            async def scan(self, fields: RowFields) -> AsyncGenerator[list[Row], None]:
                media._used[sha256] = clock.now  # a write that comes once this table was looked through
                yield []

        late = TouchingTable(PHOTOS)
        collections._catalog._tables[PHOTOS.name] = late  # type: ignore[attr-defined]  # it is a MemoryCatalog
        assert writer.schema.name < PHOTOS.name
        assert await collector.collect_media() == 0
        assert await media.touch([sha256])

    async def test_it_goes_on_after_a_failure(
        self,
        catalog: MemoryCatalog,
        media: MemoryMedia,
        collector: GarbageCollector,
        clock: Clock,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        catalog._tables[PHOTOS.name] = UnreadableTable(PHOTOS)
        sha256 = await self.put(media, b"a")
        clock.now += 2 * DAY
        async with collector.running(optimize_seconds=0.01, collect_seconds=0.01):
            async with asyncio.timeout(HANG_SECONDS):
                while "collecting unused media failed" not in caplog.text:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await catalog.drop(PHOTOS.name)
            async with asyncio.timeout(HANG_SECONDS):
                while sha256 in media._objects:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
