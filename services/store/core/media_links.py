"""What only some object stores for media can do: let others read by URL."""

from typing import Protocol


class MediaLinks(Protocol):
    """URLs that anybody may read an object by, for some time."""

    async def url(self, sha256: str, seconds: int, mime_type: str) -> str:
        """Return a URL of the object for `seconds`, 1 to 604,800; it is served as `mime_type`, if that is not empty.

        Raises:
            MediaNotFoundError: it is not here.
        """
        ...
