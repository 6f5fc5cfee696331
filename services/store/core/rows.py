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


class RowField(Enum):
    """A field of a row that readers can leave out; all others are always read."""

    TEXT = "text"
    METADATA = "metadata"
    MEDIA = "media"
    VECTORS = "vectors"


RowFields = frozenset[RowField]
NO_FIELDS: RowFields = frozenset()
ALL_FIELDS: RowFields = frozenset(RowField)


@dataclass(frozen=True, slots=True)
class Space:
    """A vector column. Its vectors are made from the first of `sources` that an item has.

    `index` is how it is indexed, and all of a space that can change.
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
    """The name and spaces of a collection; `uid` distinguishes it from others created under the same name."""

    name: str
    uid: str
    spaces: tuple[Space, ...]
    created: datetime

    def space(self, name: str) -> Space | None:
        """Return the space called `name`, None where there is none."""
        return next((space for space in self.spaces if space.name == name), None)

    def with_indexes(self, indexes: Mapping[str, IndexConfig]) -> "CollectionSchema":
        """Return the schema with the index of each space in `indexes`, by name, replaced.

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
    """An item as stored. Fields that were not read are at their defaults; `spaces` are those it has a vector in."""

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


def select_fields(row: Row, fields: RowFields) -> Row:
    """Return `row` with all but `fields` at their defaults."""
    return replace(
        row,
        text=row.text if RowField.TEXT in fields else None,
        media=row.media if RowField.MEDIA in fields else None,
        metadata_json=row.metadata_json if RowField.METADATA in fields else "{}",
        vectors=row.vectors if RowField.VECTORS in fields else {},
    )
