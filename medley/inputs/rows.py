"""Rows of a manifest as items: the mapping of columns, and the conversion of their values."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medley.inputs.inputs import BadInputError, Columns, InputError
from medley.inputs.metadata import to_metadata
from medley.values import NewItem

IDS = ("id", "item_id", "_id", "key", "uuid", "sku", "product_id", "image_id")
TEXTS = ("text", "caption", "description", "content", "title", "name")
IMAGES = ("image", "picture", "image_path", "image_file", "file_name", "filename", "file", "path", "photo", "img")
NESTED = "metadata"
"""The keys of an object in this column become metadata keys."""


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """The columns of one manifest by what they hold."""

    id: str
    text: str | None
    image: str | None
    metadata: tuple[str, ...] | None

    def is_metadata(self, column: str) -> bool:
        """Whether `column` becomes metadata."""
        if self.metadata is not None:
            return column in self.metadata
        return column not in (self.id, self.text, self.image)


def map_columns(requested: Columns, present: tuple[str, ...], path: Path) -> ColumnMapping:
    """Return the mapping of the columns `present`: as requested, the rest guessed by name.

    Raises:
        InputError: a requested column is missing, none looks like an id, or none has anything to embed.
    """
    for column in filter(None, (requested.id, requested.text, requested.image, *(requested.metadata or ()))):
        if column not in present:
            raise InputError(f"{path}: no column {column!r}; there are {_join(present)}")
    item_id = requested.id or _guess(IDS, present, ())
    if item_id is None:
        raise InputError(f"{path}: no column for the ids; name it with --id-column, there are {_join(present)}")
    text = requested.text or _guess(TEXTS, present, (item_id, requested.image))
    image = requested.image or _guess(IMAGES, present, (item_id, text))
    if text is None and image is None:
        raise InputError(
            f"{path}: no column for texts or pictures; name one with --text-column or --image-column, "
            f"there are {_join(present)}"
        )
    return ColumnMapping(item_id, text, image, requested.metadata)


def row_to_item(row: Mapping[str, Any], mapping: ColumnMapping, folder: Path, convert: Callable[[Any], Any]) -> NewItem:
    """Return the item that `row` describes; picture paths are relative to `folder`.

    Raises:
        BadInputError: a value does not suit its column.
    """
    return NewItem(
        id=_id(row.get(mapping.id), mapping.id),
        text=_text(row.get(mapping.text), mapping.text) if mapping.text else None,
        media=_media(row.get(mapping.image), mapping.image, folder) if mapping.image else None,
        metadata=to_metadata(_metadata(row, mapping, convert)),
    )


def _guess(names: Iterable[str], present: tuple[str, ...], taken: tuple[str | None, ...]) -> str | None:
    by_lower_case = {column.strip().lower(): column for column in present if column not in taken}
    return next((by_lower_case[name] for name in names if name in by_lower_case), None)


def _join(columns: tuple[str, ...]) -> str:
    return ", ".join(columns) or "none"


def _id(value: Any, column: str) -> str:
    match value:
        case None | "":
            raise BadInputError(f"column {column!r} has no id")
        case str():
            return value
        case bool():
            raise BadInputError(f"column {column!r} holds {value!r}, which is not an id")
        case int():
            return str(value)
        case float() if value.is_integer():
            return str(int(value))
        case _:
            raise BadInputError(f"column {column!r} holds {value!r:.40}, which is not an id")


def _text(value: Any, column: str | None) -> str | None:
    match value:
        case None | "":
            return None
        case float() if value != value:  # noqa: PLR0124  # NaN
            return None
        case str():
            return value
        case int() | float():
            return str(value)
        case _:
            raise BadInputError(f"column {column!r} holds {type(value).__name__}, not text")


def _media(value: Any, column: str | None, folder: Path) -> bytes | Path | None:
    match value:
        case None | "" | b"":
            return None
        case float() if value != value:  # noqa: PLR0124  # NaN
            return None
        case bytes():
            return value
        case {"bytes": bytes() as content} if content:
            return content
        case {"path": str() as path}:
            return _media(path, column, folder)
        case {"bytes": None}:
            return None
        case str() if value.startswith(("http://", "https://")):
            raise BadInputError(f"column {column!r} holds {value!r:.60}: only files are read, download it first")
        case str():
            return folder / value
        case _:
            raise BadInputError(f"column {column!r} holds {type(value).__name__}, not a picture or its path")


def _metadata(row: Mapping[str, Any], mapping: ColumnMapping, convert: Callable[[Any], Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for column, value in row.items():
        if mapping.is_metadata(column):
            nested = _object(value) if column == NESTED else None
            metadata |= {column: convert(value)} if nested is None else nested
    return metadata


def _object(value: Any) -> dict[str, Any] | None:
    """Return `value` if it is an object, or the object that it encodes as JSON; else None."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None
