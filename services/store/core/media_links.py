"""The optional port of media stores that can hand out URLs."""

from typing import Protocol


class MediaLinks(Protocol):
    """Presigned URLs: whoever has one can read the object until it expires."""

    async def url(self, sha256: str, seconds: int, mime_type: str) -> str:
        """Return a URL of an object, valid for `seconds` (1 to 604,800); it is served as `mime_type` unless "".

        Raises:
            MediaNotFoundError: there is no such object.
        """
        ...
