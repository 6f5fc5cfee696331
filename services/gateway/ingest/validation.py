"""An item that came in, checked against its collection."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.common.errors import ItemEmptyError, SpaceNotFoundError
from services.common.metadata import parse_metadata
from services.common.names import validate_item_id
from services.common.vectors import Matrix, from_bytes, validate_comparable
from services.gateway.core.items import (
    Collection,
    Inline,
    MediaSource,
    NewItem,
    Space,
    VectorNotAcceptedError,
    validate_text,
)


@dataclass(frozen=True, slots=True)
class ValidatedItem:
    """An item that may be stored once it is embedded."""

    id: str
    text: str | None
    media: MediaSource | None
    metadata_json: str
    vectors: Mapping[str, Matrix]


def validate_item(item: NewItem, collection: Collection) -> ValidatedItem:
    """Return `item`, checked.

    Raises:
        IdError, TextError, MetadataError: one that is not allowed.
        ItemEmptyError: neither text nor media nor vectors.
        SpaceNotFoundError, VectorNotAcceptedError, DimensionError, VectorError: a vector that is not for its space.
    """
    validate_item_id(item.id)
    if item.text is None and item.media is None and not item.vectors:
        raise ItemEmptyError(item.id)
    if item.text is not None:
        validate_text(item.text)
    parse_metadata(item.metadata_json)
    return ValidatedItem(item.id, item.text, item.media, item.metadata_json, own_vectors(item.vectors, collection))


def own_vectors(vectors: Mapping[str, bytes], collection: Collection) -> dict[str, Matrix]:
    """Return the vectors that a caller brings for spaces without a model.

    Raises:
        SpaceNotFoundError, VectorNotAcceptedError, DimensionError, VectorError: one is not for its space.
    """
    spaces = {space.name: space for space in collection.spaces}
    return {name: _own_vector(name, float32_le, spaces) for name, float32_le in vectors.items()}


def size_of(item: NewItem) -> int:
    """Return about how many bytes of memory `item` takes."""
    inline = len(item.media.data) if isinstance(item.media, Inline) else 0
    vectors = sum(map(len, item.vectors.values()))
    return inline + vectors + len(item.id) + len(item.text or "") + len(item.metadata_json)


def _own_vector(name: str, float32_le: bytes, spaces: Mapping[str, Space]) -> Matrix:
    if name not in spaces:
        raise SpaceNotFoundError(name, list(spaces))
    space = spaces[name]
    if space.model:
        raise VectorNotAcceptedError(space)
    return validate_comparable(from_bytes(float32_le, space.dimensions), space.metric)
