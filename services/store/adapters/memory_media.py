"""Media in memory, for tests and trials; they are lost when the process ends."""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from datetime import UTC, datetime

from services.store.core.errors import MediaNotFoundError
from services.store.core.media_store import ExpectedUpload, StoredObject, validate_upload


class MemoryMedia:
    """`MediaStore` over a dict."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._used: dict[str, datetime] = {}

    async def put(self, chunks: AsyncIterator[bytes], expected: ExpectedUpload) -> StoredObject:
        content = b"".join([chunk async for chunk in chunks])
        stored = validate_upload(StoredObject(hashlib.sha256(content).hexdigest(), len(content)), expected)
        self._objects[stored.sha256] = content
        self._used[stored.sha256] = datetime.now(UTC)
        return stored

    async def touch(self, sha256s: Collection[str]) -> Mapping[str, int]:
        found = [sha256 for sha256 in sha256s if sha256 in self._objects]
        self._used.update(dict.fromkeys(found, datetime.now(UTC)))
        return {sha256: len(self._objects[sha256]) for sha256 in found}

    async def size_bytes(self, sha256: str) -> int:
        return len(self._object(sha256))

    async def read(self, sha256: str, offset: int, length: int) -> bytes:
        return self._object(sha256)[offset : offset + length]

    async def unused_since(self, moment: datetime) -> AsyncGenerator[str, None]:
        for sha256 in [sha256 for sha256, used in self._used.items() if used < moment]:
            yield sha256

    async def delete(self, sha256: str, unused_since: datetime) -> bool:
        if sha256 not in self._objects or self._used[sha256] >= unused_since:
            return False
        del self._objects[sha256], self._used[sha256]
        return True

    def _object(self, sha256: str) -> bytes:
        if sha256 not in self._objects:
            raise MediaNotFoundError(sha256)
        return self._objects[sha256]
