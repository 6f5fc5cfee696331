import asyncio
import errno
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.store.adapters.folder_media import FolderMedia
from services.store.adapters.memory_media import MemoryMedia
from services.store.adapters.threads import Threads
from services.store.errors import StorageFullError
from services.store.media_store import MediaStore
from tests.contract.store_media import ANYTHING, CONTENT, SHA, MediaStoreContract, before, chunks


class TestMemoryMedia(MediaStoreContract):
    @pytest.fixture
    async def media(self) -> MediaStore:
        return MemoryMedia()


class TestFolderMedia(MediaStoreContract):
    @pytest.fixture
    async def media(self, tmp_path: Path) -> AsyncIterator[MediaStore]:
        async with Threads("media", 4) as threads:
            media = FolderMedia(tmp_path / "media", threads)
            await media.open()
            yield media

    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "media" / SHA[:2] / SHA[2:4] / SHA

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
        assert await media.claim([SHA])
        assert not await media.delete(SHA, before())

    async def test_an_upload_given_up_leaves_nothing(self, media: MediaStore, tmp_path: Path) -> None:
        begun = asyncio.Event()

        async def stalled() -> AsyncIterator[bytes]:
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
            yield CONTENT
            begun.set()
            await go_on.wait()

        upload = asyncio.create_task(media.put(slow(), ANYTHING))
        await begun.wait()
        async with Threads("other", 1) as threads:
            await FolderMedia(tmp_path / "media", threads).open()
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
