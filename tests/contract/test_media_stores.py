import asyncio
import errno
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.common.concurrency.executors import BoundedExecutor
from services.common.errors import StorageFullError
from services.store.adapters.folder_media import FolderMedia
from services.store.adapters.memory_media import MemoryMedia
from services.store.core.errors import UploadIncompleteError
from services.store.core.media_store import ExpectedUpload, MediaStore
from tests.contract.store_media import ANYTHING, CONTENT, SHA, MediaStoreContract, before, chunks


class TestMemoryMedia(MediaStoreContract):
    @pytest.fixture
    async def media(self) -> MediaStore:
        return MemoryMedia()


class TestFolderMedia(MediaStoreContract):
    @pytest.fixture
    async def media(self, tmp_path: Path) -> AsyncIterator[MediaStore]:
        async with BoundedExecutor("media", 4) as threads, BoundedExecutor("sync", 2) as syncers:
            media = FolderMedia(tmp_path / "media", threads, syncers)
            await media.open()
            yield media

    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "media" / SHA[:2] / SHA

    def incoming(self, tmp_path: Path) -> list[Path]:
        return list((tmp_path / "media" / "incoming").iterdir())

    def age(self, tmp_path: Path) -> None:
        old = (datetime.now(UTC) - timedelta(days=2)).timestamp()
        os.utime(self.path(tmp_path), (old, old))

    async def test_an_object_is_a_file_named_by_its_hash(self, media: MediaStore, tmp_path: Path) -> None:
        await media.put(chunks(CONTENT), ANYTHING)
        assert self.path(tmp_path).read_bytes() == CONTENT
        assert self.incoming(tmp_path) == []

    async def test_putting_again_counts_as_use(self, media: MediaStore, tmp_path: Path) -> None:
        await media.put(chunks(CONTENT), ANYTHING)
        self.age(tmp_path)
        await media.put(chunks(CONTENT), ANYTHING)
        assert not await media.delete(SHA, before())

    async def test_a_claim_counts_as_use(self, media: MediaStore, tmp_path: Path) -> None:
        await media.put(chunks(CONTENT), ANYTHING)
        self.age(tmp_path)
        assert await media.touch([SHA])
        assert not await media.delete(SHA, before())

    async def test_an_upload_given_up_leaves_nothing(self, media: MediaStore, tmp_path: Path) -> None:
        begun = asyncio.Event()

        async def stalled() -> AsyncIterator[bytes]:
            yield CONTENT
            yield CONTENT
            begun.set()
            await asyncio.Event().wait()

        upload = asyncio.create_task(media.put(stalled(), ANYTHING))
        await begun.wait()
        assert len(self.incoming(tmp_path)) == 1
        upload.cancel()
        await asyncio.gather(upload, return_exceptions=True)
        assert self.incoming(tmp_path) == []

    async def test_a_start_removes_what_a_crash_left_and_nothing_else(self, media: MediaStore, tmp_path: Path) -> None:
        left = tmp_path / "media" / "incoming" / "left"
        left.write_bytes(b"half")
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield CONTENT[:7]
            yield CONTENT[7:]
            begun.set()
            await go_on.wait()

        upload = asyncio.create_task(media.put(slow(), ANYTHING))
        await begun.wait()
        async with BoundedExecutor("other", 1) as threads:
            await FolderMedia(tmp_path / "media", threads, threads).open()
        assert not left.exists()
        go_on.set()
        assert (await upload).sha256 == SHA

    async def test_a_full_disk_is_told_and_leaves_nothing(
        self, media: MediaStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StorageFullError):
            await media.put(chunks(CONTENT), ANYTHING)
        assert self.incoming(tmp_path) == []
        assert await self.kept(media) == []

    async def test_many_at_a_time_are_each_kept_once(self, media: MediaStore) -> None:
        contents = [b"%d" % (number % 40) for number in range(100)]
        stored = await asyncio.gather(*(media.put(chunks(content), ANYTHING) for content in contents))
        assert [await media.read(each.sha256, 0, 9) for each in stored] == contents
        assert len(await self.kept(media)) == 40

    async def test_one_bad_upload_among_many_is_refused_alone(self, media: MediaStore) -> None:
        uploads = [media.put(chunks(CONTENT), ANYTHING), media.put(chunks(b"short"), ExpectedUpload(6))]
        kept, refused = await asyncio.gather(*uploads, return_exceptions=True)
        assert not isinstance(kept, BaseException)
        assert isinstance(refused, UploadIncompleteError)
        assert await self.kept(media) == [SHA]
