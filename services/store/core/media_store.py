"""The port to an object store for media."""

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.common.errors import MediaError
from services.store.core.errors import UploadIncompleteError


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in the store; its name is the SHA-256 of its bytes in lower-case hexadecimal."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ExpectedUpload:
    """The announced size and hash of an upload; 0 and "" accept any."""

    size_bytes: int = 0
    sha256: str = ""


class MediaStore(Protocol):
    """Objects named by their content, each kept once. Implementations pass `tests.contract.store_media`.

    An object counts as used when it is put or touched. Only objects that have long been unused may be deleted, so that
    garbage collection never removes one that a row being written refers to.
    """

    async def put(self, chunks: AsyncIterator[bytes], expected: ExpectedUpload) -> StoredObject:
        """Store the bytes of `chunks`, durably; if the object exists already, count it as used.

        Raises:
            UploadIncompleteError: the size or hash is not the expected one; nothing is stored.
            MediaError: there are no bytes.
            StorageFullError: the storage is full; nothing is stored.
        """
        ...

    async def touch(self, sha256s: Collection[str]) -> Mapping[str, int]:
        """Return the sizes in bytes of those objects that exist, and count them as used now."""
        ...

    async def size_bytes(self, sha256: str) -> int:
        """Return an object's size.

        Raises:
            MediaNotFoundError: there is no such object.
        """
        ...

    async def read(self, sha256: str, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer if the object ends before.

        Raises:
            MediaNotFoundError: there is no such object.
        """
        ...

    def unused_since(self, moment: datetime) -> AsyncIterator[str]:
        """Yield the hashes of the objects not used since `moment`, in any order."""
        ...

    async def delete(self, sha256: str, unused_since: datetime) -> bool:
        """Delete an object unless it was used since `unused_since`; return whether it was deleted."""
        ...


def validate_upload(stored: StoredObject, expected: ExpectedUpload) -> StoredObject:
    """Return `stored` if it is the expected object; every adapter calls this before it stores one.

    Raises:
        UploadIncompleteError: the size or hash differs.
        MediaError: there are no bytes.
    """
    if expected.size_bytes not in (0, stored.size_bytes):
        raise UploadIncompleteError(f"{expected.size_bytes} bytes", f"{stored.size_bytes} bytes")
    if not stored.size_bytes:
        raise MediaError("is empty")
    if expected.sha256 not in ("", stored.sha256):
        raise UploadIncompleteError(expected.sha256, stored.sha256)
    return stored
