"""Collections, spaces and items."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from services.common.content import ContentType
from services.common.errors import InvalidError, TextError
from services.common.vectors import Metric

MAX_TEXT_CHARACTERS = 100_000


class ItemField(Enum):
    """A part of an item that a reader may request."""

    TEXT = "text"
    METADATA = "metadata"
    MEDIA = "media"
    MEDIA_DATA = "media_data"
    VECTORS = "vectors"


@dataclass(frozen=True, slots=True)
class Space:
    """A named vector column. Without a `model` the callers provide the vectors, and there are no `sources`."""

    name: str
    model: str
    dimensions: int
    metric: Metric
    sources: tuple[ContentType, ...] = ()
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Collection:
    """A named set of items and the spaces they are searched in."""

    name: str
    spaces: tuple[Space, ...]


@dataclass(frozen=True, slots=True)
class InlineMedia:
    """Media sent with the item."""

    data: bytes


@dataclass(frozen=True, slots=True)
class StoredMedia:
    """Media that are already in the store, by the SHA-256 of their bytes."""

    sha256: str


MediaSource = InlineMedia | StoredMedia


@dataclass(frozen=True, slots=True)
class MediaFacts:
    """Properties of media, found from their bytes; `width` and `height` in pixels as shown."""

    content_type: ContentType
    sha256: str
    mime_type: str
    size_bytes: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item as received, not validated; `vectors` are little-endian float32 by space."""

    id: str
    text: str | None = None
    media: MediaSource | None = None
    metadata_json: str = ""
    vectors: Mapping[str, bytes] = field(default_factory=dict)


class VectorNotAcceptedError(InvalidError):
    """A vector for a space whose model makes the vectors."""

    reason = "VECTOR_NOT_ACCEPTED"

    def __init__(self, space: Space) -> None:
        super().__init__(
            f"vectors of space {space.name!r} are made by {space.model!r}", space=space.name, model=space.model
        )


def validate_text(text: str) -> str:
    """Return `text` if it has 1 to 100,000 characters that are not all white space.

    Raises:
        TextError: it has not.
    """
    if not text or text.isspace():
        raise TextError("is empty")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise TextError(f"has {len(text)} characters, {MAX_TEXT_CHARACTERS} at most")
    return text
