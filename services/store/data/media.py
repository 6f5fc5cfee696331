"""Media: uploads and downloads."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from services.common.errors import ArgumentError
from services.store.core.errors import MediaWithoutUrlError
from services.store.core.media_links import MediaLinks
from services.store.core.media_store import Announcement, MediaStore
from services.store.core.mime import SNIFFED_BYTES, mime_type
from services.store.core.rows import Media
from services.store.core.validation import checked_sha256

CHUNK_BYTES = 2**20
URL_SECONDS = 3600
MAX_URL_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload: what its header says, and its bytes as they come."""

    announced: Announcement
    mime_type: str
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some bytes of an object; `object_bytes` is the size of the whole, on the first chunk, else 0."""

    content: bytes
    object_bytes: int = 0


class MediaService:
    """Takes media in and hands them out."""

    def __init__(self, media: MediaStore, links: MediaLinks | None = None) -> None:
        self._media = media
        self._links = links

    async def put(self, upload: Upload) -> Media:
        """Keep an object; return its reference once it is durable.

        Raises:
            ArgumentError: a bad hash or size announced, or a chunk of over 1 MiB.
            UploadIncompleteError: not what was announced; nothing is kept.
            MediaError: no bytes at all.
        """
        if upload.announced.sha256:
            checked_sha256(upload.announced.sha256)
        if upload.announced.size_bytes < 0:
            raise ArgumentError("size_bytes", upload.announced.size_bytes, "must not be negative")
        stored = await self._media.put(_bounded(upload.chunks), upload.announced)
        mime = upload.mime_type or mime_type(await self._media.read(stored.sha256, 0, SNIFFED_BYTES))
        return Media(stored.sha256, mime, stored.size_bytes)

    async def url(self, sha256: str, seconds: int, mime_type: str) -> str:
        """Return a URL of an object for `seconds`, 0 meaning an hour; it is served as `mime_type`.

        Raises:
            MediaWithoutUrlError: media are kept where they have none.
            MediaNotFoundError: no such object.
            ArgumentError: a bad hash or time.
        """
        if self._links is None:
            raise MediaWithoutUrlError
        if not 0 <= seconds <= MAX_URL_SECONDS:
            raise ArgumentError("expires_seconds", seconds, f"must be 1 to {MAX_URL_SECONDS}, or 0")
        return await self._links.url(checked_sha256(sha256), seconds or URL_SECONDS, mime_type)

    async def read(self, sha256: str, offset: int, length: int) -> AsyncGenerator[Chunk, None]:
        """Yield `length` bytes of an object from `offset`, 0 meaning all from there on, in chunks of at most 1 MiB.

        At least one chunk comes, an empty one where the range begins at the object's end.

        Raises:
            MediaNotFoundError: no such object.
            ArgumentError: a bad hash, or a range that begins past the object's end.
        """
        size = await self._media.size_bytes(checked_sha256(sha256))
        if not 0 <= offset <= size:
            raise ArgumentError("range.offset", offset, f"must be 0 to {size}, the object's size")
        if length < 0:
            raise ArgumentError("range.length", length, "must not be negative")
        end = min(size, offset + length) if length else size
        yield Chunk(await self._media.read(sha256, offset, min(CHUNK_BYTES, end - offset)), size)
        for start in range(offset + CHUNK_BYTES, end, CHUNK_BYTES):
            yield Chunk(await self._media.read(sha256, start, min(CHUNK_BYTES, end - start)))


async def _bounded(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        if len(chunk) > CHUNK_BYTES:
            raise ArgumentError("chunk", len(chunk), f"must have at most {CHUNK_BYTES} bytes")
        yield chunk
