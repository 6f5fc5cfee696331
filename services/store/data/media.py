"""Uploads and downloads of media."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from services.common.errors import ArgumentError
from services.store.core.errors import MediaWithoutUrlError
from services.store.core.media_links import MediaLinks
from services.store.core.media_store import ExpectedUpload, MediaStore
from services.store.core.mime import SNIFFED_BYTES, mime_type
from services.store.core.rows import Media
from services.store.core.validation import validate_sha256

CHUNK_BYTES = 2**20
URL_SECONDS = 3600
MAX_URL_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload: its header, and its bytes as they arrive."""

    expected: ExpectedUpload
    mime_type: str
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of an object; `object_bytes` is the size of the object on the first chunk, 0 on the others."""

    content: bytes
    object_bytes: int = 0


class MediaService:
    """Stores and reads media."""

    def __init__(self, media: MediaStore, links: MediaLinks | None = None) -> None:
        self._media = media
        self._links = links

    async def put(self, upload: Upload) -> Media:
        """Store an object; return its reference once it is durable.

        Raises:
            ArgumentError: the announced hash or size is invalid, or a chunk has over 1 MiB.
            UploadIncompleteError: the size or hash is not the announced one; nothing is stored.
            MediaError: there are no bytes.
        """
        if upload.expected.sha256:
            validate_sha256(upload.expected.sha256)
        if upload.expected.size_bytes < 0:
            raise ArgumentError("size_bytes", upload.expected.size_bytes, "must not be negative")
        stored = await self._media.put(_validate_chunks(upload.chunks), upload.expected)
        mime = upload.mime_type or mime_type(await self._media.read(stored.sha256, 0, SNIFFED_BYTES))
        return Media(stored.sha256, mime, stored.size_bytes)

    async def url(self, sha256: str, seconds: int, mime_type: str) -> str:
        """Return a URL of an object, valid for `seconds`, 0 meaning an hour; it is served as `mime_type`.

        Raises:
            MediaWithoutUrlError: the media store has no URLs.
            MediaNotFoundError: there is no such object.
            ArgumentError: the hash or time is invalid.
        """
        if self._links is None:
            raise MediaWithoutUrlError
        if not 0 <= seconds <= MAX_URL_SECONDS:
            raise ArgumentError("expires_seconds", seconds, f"must be 1 to {MAX_URL_SECONDS}, or 0")
        return await self._links.url(validate_sha256(sha256), seconds or URL_SECONDS, mime_type)

    async def read(self, sha256: str, offset: int, length: int) -> AsyncGenerator[Chunk, None]:
        """Yield `length` bytes of an object from `offset`, in chunks of at most 1 MiB; a length of 0 means to the end.

        There is at least one chunk, an empty one if the range begins at the object's end.

        Raises:
            MediaNotFoundError: there is no such object.
            ArgumentError: the hash is invalid, or the range begins past the object's end.
        """
        size = await self._media.size_bytes(validate_sha256(sha256))
        if not 0 <= offset <= size:
            raise ArgumentError("range.offset", offset, f"must be 0 to {size}, the object's size")
        if length < 0:
            raise ArgumentError("range.length", length, "must not be negative")
        end = min(size, offset + length) if length else size
        yield Chunk(await self._media.read(sha256, offset, min(CHUNK_BYTES, end - offset)), size)
        for start in range(offset + CHUNK_BYTES, end, CHUNK_BYTES):
            yield Chunk(await self._media.read(sha256, start, min(CHUNK_BYTES, end - start)))


async def _validate_chunks(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        if len(chunk) > CHUNK_BYTES:
            raise ArgumentError("chunk", len(chunk), f"must have at most {CHUNK_BYTES} bytes")
        yield chunk
