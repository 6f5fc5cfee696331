"""What the store asks of an object store for media."""

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.common.errors import MediaError
from services.store.core.errors import UploadIncompleteError


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as kept: its name is the SHA-256 of its bytes, lower-case hexadecimal."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Announcement:
    """What an upload should turn out to be; a size of 0 and an empty hash announce nothing."""

    size_bytes: int = 0
    sha256: str = ""


class MediaStore(Protocol):
    """Objects named by their content, each kept once. Implementations pass `tests.contract.store_media`.

    An object counts as used when it is put or claimed; only objects long unused may be deleted, so that one about to be
    referred to is never lost to a clean-up that runs meanwhile.
    """

    async def put(self, chunks: AsyncIterator[bytes], announced: Announcement) -> StoredObject:
        """Keep the bytes of `chunks`, durably; if they are here already, count them as used.

        Raises:
            UploadIncompleteError: not what was announced; nothing is kept.
            MediaError: no bytes at all.
            StorageFullError: no room; nothing is kept.
        """
        ...

    async def claim(self, sha256s: Collection[str]) -> Mapping[str, int]:
        """Return the sizes in bytes of those objects that are here, and count them as used now."""
        ...

    async def size_bytes(self, sha256: str) -> int:
        """Return an object's size.

        Raises:
            MediaNotFoundError: it is not here.
        """
        ...

    async def read(self, sha256: str, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer where the object ends before.

        Raises:
            MediaNotFoundError: it is not here.
        """
        ...

    def unused_since(self, moment: datetime) -> AsyncIterator[str]:
        """Yield the hashes of the objects not used since `moment`, in any order."""
        ...

    async def delete(self, sha256: str, unused_since: datetime) -> bool:
        """Delete an object unless it was used since `unused_since`; return whether it was deleted."""
        ...


def checked_upload(stored: StoredObject, announced: Announcement) -> StoredObject:
    """Return `stored` if it is what was announced; every adapter asks before it keeps an object.

    Raises:
        UploadIncompleteError: another size or hash.
        MediaError: no bytes at all.
    """
    if announced.size_bytes not in (0, stored.size_bytes):
        raise UploadIncompleteError(f"{announced.size_bytes} bytes", f"{stored.size_bytes} bytes")
    if not stored.size_bytes:
        raise MediaError("is empty")
    if announced.sha256 not in ("", stored.sha256):
        raise UploadIncompleteError(announced.sha256, stored.sha256)
    return stored
