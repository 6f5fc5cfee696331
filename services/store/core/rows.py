"""What the store keeps: collections with their spaces, and rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum

from services.common.content import ContentType
from services.common.errors import SpaceNotFoundError
from services.common.index_config import IndexConfig
from services.common.vectors import Matrix, Metric

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Part(Enum):
    """A part of a row that a reader may leave out; the rest always comes."""

    TEXT = "text"
    METADATA = "metadata"
    MEDIA = "media"
    VECTORS = "vectors"


Parts = frozenset[Part]
NOTHING: Parts = frozenset()
EVERYTHING: Parts = frozenset(Part)


@dataclass(frozen=True, slots=True)
class Space:
    """A vector column; `sources` are the contents it is made from, the first that an item has.

    `index` is how it is to be indexed: all that can change of a space.
    """

    name: str
    dimensions: int
    metric: Metric = Metric.COSINE
    model: str = ""
    sources: tuple[ContentType, ...] = ()
    fingerprint: str = ""
    index: IndexConfig = field(default_factory=IndexConfig)


@dataclass(frozen=True, slots=True)
class CollectionSchema:
    """A collection: `uid` tells it from every other that had or will have its name."""

    name: str
    uid: str
    spaces: tuple[Space, ...]
    created: datetime

    def space(self, name: str) -> Space | None:
        """Return the space called `name`, None where there is none."""
        return next((space for space in self.spaces if space.name == name), None)

    def indexed(self, indexes: Mapping[str, IndexConfig]) -> "CollectionSchema":
        """Return the definition with spaces indexed by `indexes`, by name; those left out are as before.

        Raises:
            SpaceNotFoundError: there is no such space.
        """
        names = [space.name for space in self.spaces]
        for name in indexes.keys() - set(names):
            raise SpaceNotFoundError(name, names)
        spaces = (replace(space, index=indexes.get(space.name, space.index)) for space in self.spaces)
        return replace(self, spaces=tuple(spaces))


@dataclass(frozen=True, slots=True)
class Media:
    """A reference to a stored object; `width` and `height` in pixels, 0 where they do not apply."""

    sha256: str
    mime_type: str
    size_bytes: int
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """An item as kept. Parts a reader left out are at their defaults; `spaces` are those it has a vector in."""

    id: str
    content: ContentType
    text: str | None = None
    media: Media | None = None
    metadata_json: str = "{}"
    vectors: Mapping[str, Matrix] = field(default_factory=dict)
    spaces: tuple[str, ...] = ()
    revision: int = 0
    created: datetime = EPOCH
    updated: datetime = EPOCH
