"""What every `MediaStore` does. Subclass it, give the `media` fixture, inherit the tests."""

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from services.common.errors import MediaError
from services.store.core.errors import MediaNotFoundError, UploadIncompleteError
from services.store.core.media_store import ExpectedUpload, MediaStore

CONTENT = b"0123456789" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()
NONE = "00" * 32
ANYTHING = ExpectedUpload()


async def chunks(content: bytes, size: int = 999) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def broken() -> AsyncIterator[bytes]:
    yield CONTENT
    raise ConnectionResetError


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=10)


def before() -> datetime:
    return datetime.now(UTC) - timedelta(seconds=10)


class MediaStoreContract:
    @pytest.fixture
    async def media(self) -> MediaStore:
        raise NotImplementedError

    async def kept(self, media: MediaStore) -> list[str]:
        return [sha256 async for sha256 in media.unused_since(soon())]

    async def test_what_is_put_is_read(self, media: MediaStore) -> None:
        stored = await media.put(chunks(CONTENT), ExpectedUpload(len(CONTENT), SHA))
        assert (stored.sha256, stored.size_bytes) == (SHA, len(CONTENT))
        assert await media.read(SHA, 0, len(CONTENT)) == CONTENT
        assert await media.size_bytes(SHA) == len(CONTENT)

    async def test_a_range_ends_with_the_object(self, media: MediaStore) -> None:
        await media.put(chunks(CONTENT), ANYTHING)
        assert await media.read(SHA, 3, 4) == CONTENT[3:7]
        assert await media.read(SHA, len(CONTENT) - 2, 10) == CONTENT[-2:]
        assert await media.read(SHA, len(CONTENT), 10) == b""

    async def test_the_same_bytes_are_kept_once(self, media: MediaStore) -> None:
        await media.put(chunks(CONTENT), ANYTHING)
        await media.put(chunks(CONTENT, size=7), ANYTHING)
        assert await self.kept(media) == [SHA]

    async def test_no_bytes_are_no_media(self, media: MediaStore) -> None:
        with pytest.raises(MediaError):
            await media.put(chunks(b""), ANYTHING)
        assert await self.kept(media) == []

    @pytest.mark.parametrize("expected", [ExpectedUpload(len(CONTENT) + 1), ExpectedUpload(1), ExpectedUpload(0, NONE)])
    async def test_what_was_not_announced_is_not_kept(self, media: MediaStore, expected: ExpectedUpload) -> None:
        with pytest.raises(UploadIncompleteError):
            await media.put(chunks(CONTENT), expected)
        assert await self.kept(media) == []

    async def test_an_upload_that_breaks_off_is_not_kept(self, media: MediaStore) -> None:
        with pytest.raises(ConnectionResetError):
            await media.put(broken(), ANYTHING)
        assert await self.kept(media) == []

    async def test_what_is_not_there_is_not_found(self, media: MediaStore) -> None:
        for missing in (media.read(NONE, 0, 1), media.size_bytes(NONE)):
            with pytest.raises(MediaNotFoundError):
                await missing

    async def test_claims_tell_what_is_there(self, media: MediaStore) -> None:
        await media.put(chunks(CONTENT), ANYTHING)
        assert await media.touch([SHA, NONE]) == {SHA: len(CONTENT)}
        assert await media.touch([]) == {}

    async def test_only_the_unused_is_deleted(self, media: MediaStore) -> None:
        await media.put(chunks(CONTENT), ANYTHING)
        assert not await media.delete(SHA, before())
        assert await media.touch([SHA])
        assert await media.delete(SHA, soon())
        assert not await media.delete(SHA, soon())
        assert await media.touch([SHA]) == {}

    async def test_what_was_used_since_is_not_unused(self, media: MediaStore) -> None:
        await media.put(chunks(CONTENT), ANYTHING)
        assert [sha256 async for sha256 in media.unused_since(before())] == []
        assert await self.kept(media) == [SHA]
