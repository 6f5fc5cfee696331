"""Validates items against their collection."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.common.errors import ItemEmptyError, SpaceNotFoundError
from services.common.metadata import parse_metadata
from services.common.names import validate_item_id
from services.common.vectors import Matrix, from_bytes, validate_comparable
from services.gateway.core.items import (
    Collection,
    InlineMedia,
    MediaSource,
    NewItem,
    Space,
    VectorNotAcceptedError,
    validate_text,
)


@dataclass(frozen=True, slots=True)
class ValidatedItem:
    """An item that passed `validate_item`."""

    id: str
    text: str | None
    media: MediaSource | None
    metadata_json: str
    vectors: Mapping[str, Matrix]


def validate_item(item: NewItem, collection: Collection) -> ValidatedItem:
    """Return `item` if it may be stored in `collection`.

    Raises:
        IdError, TextError, MetadataError: the id, text or metadata are not allowed.
        ItemEmptyError: there is neither text nor media nor a vector.
        SpaceNotFoundError, VectorNotAcceptedError, DimensionError, VectorError: a vector does not fit its space.
    """
    validate_item_id(item.id)
    if item.text is None and item.media is None and not item.vectors:
        raise ItemEmptyError(item.id)
    if item.text is not None:
        validate_text(item.text)
    parse_metadata(item.metadata_json)
    return ValidatedItem(item.id, item.text, item.media, item.metadata_json, validate_vectors(item.vectors, collection))


def validate_vectors(vectors: Mapping[str, bytes], collection: Collection) -> dict[str, Matrix]:
    """Return `vectors`, little-endian float32 for spaces without a model, as arrays.

    Raises:
        SpaceNotFoundError, VectorNotAcceptedError, DimensionError, VectorError: one does not fit its space.
    """
    spaces = {space.name: space for space in collection.spaces}
    return {name: _validate_vector(name, float32_le, spaces) for name, float32_le in vectors.items()}


def estimate_size(item: NewItem) -> int:
    """Return about how many bytes of memory `item` takes."""
    inline = len(item.media.data) if isinstance(item.media, InlineMedia) else 0
    vectors = sum(map(len, item.vectors.values()))
    return inline + vectors + len(item.id) + len(item.text or "") + len(item.metadata_json)


def _validate_vector(name: str, float32_le: bytes, spaces: Mapping[str, Space]) -> Matrix:
    if name not in spaces:
        raise SpaceNotFoundError(name, list(spaces))
    space = spaces[name]
    if space.model:
        raise VectorNotAcceptedError(space)
    return validate_comparable(from_bytes(float32_le, space.dimensions), space.metric)
