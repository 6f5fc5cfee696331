"""A manifest's row as an item: which columns mean what, and what their values mean."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medley.inputs.inputs import BadInputError, Columns, InputError
from medley.inputs.metadata import cleaned
from medley.values import NewItem

IDS = ("id", "item_id", "_id", "key", "uuid", "sku", "product_id", "image_id")
TEXTS = ("text", "caption", "description", "content", "title", "name")
IMAGES = ("image", "picture", "image_path", "image_file", "file_name", "filename", "file", "path", "photo", "img")
NESTED = "metadata"
"""A column of this name that holds an object spreads its keys."""


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """What the columns of one manifest mean."""

    id: str
    text: str | None
    image: str | None
    metadata: tuple[str, ...] | None

    def is_metadata(self, column: str) -> bool:
        """Whether `column` becomes metadata."""
        if self.metadata is not None:
            return column in self.metadata
        return column not in (self.id, self.text, self.image)


def assigned(wanted: Columns, present: tuple[str, ...], path: Path) -> ColumnMapping:
    """Return what the columns `present` mean: as wanted, the rest guessed by name.

    Raises:
        InputError: a column wanted is not there, none looks like an id, or none has anything to embed.
    """
    asked = (wanted.id, wanted.text, wanted.image, *(wanted.metadata or ()))
    for column in filter(None, asked):
        if column not in present:
            raise InputError(f"{path}: no column {column!r}; there are {_listed(present)}")
    item_id = wanted.id or _guess(IDS, present, ())
    if item_id is None:
        raise InputError(f"{path}: no column for the ids; name it with --id-column, there are {_listed(present)}")
    text = wanted.text or _guess(TEXTS, present, (item_id, wanted.image))
    image = wanted.image or _guess(IMAGES, present, (item_id, text))
    if text is None and image is None:
        raise InputError(
            f"{path}: no column for texts or pictures; name one with --text-column or --image-column, "
            f"there are {_listed(present)}"
        )
    return ColumnMapping(item_id, text, image, wanted.metadata)


def row_item(row: Mapping[str, Any], roles: ColumnMapping, folder: Path, spelt: Callable[[Any], Any]) -> NewItem:
    """Return the item that `row` describes; picture paths are relative to `folder`.

    Raises:
        BadInputError: a value cannot be what its column means.
    """
    return NewItem(
        id=_id(row.get(roles.id), roles.id),
        text=_text(row.get(roles.text), roles.text) if roles.text else None,
        media=_media(row.get(roles.image), roles.image, folder) if roles.image else None,
        metadata=cleaned(_metadata(row, roles, spelt)),
    )


def _guess(names: Iterable[str], present: tuple[str, ...], taken: tuple[str | None, ...]) -> str | None:
    by_lower_case = {column.strip().lower(): column for column in present if column not in taken}
    return next((by_lower_case[name] for name in names if name in by_lower_case), None)


def _listed(columns: tuple[str, ...]) -> str:
    return ", ".join(columns) or "none"


def _id(value: Any, column: str) -> str:
    match value:
        case None | "":
            raise BadInputError(f"column {column!r} has no id")
        case str():
            return value
        case bool():
            raise BadInputError(f"column {column!r} holds {value!r}, no id")
        case int():
            return str(value)
        case float() if value.is_integer():
            return str(int(value))
        case _:
            raise BadInputError(f"column {column!r} holds {value!r:.40}, no id")


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
            raise BadInputError(f"column {column!r} holds {type(value).__name__}, no text")


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
            raise BadInputError(f"column {column!r} holds {type(value).__name__}, no picture or path of one")


def _metadata(row: Mapping[str, Any], roles: ColumnMapping, spelt: Callable[[Any], Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for column, value in row.items():
        if roles.is_metadata(column):
            nested = _object(value) if column == NESTED else None
            metadata |= {column: spelt(value)} if nested is None else nested
    return metadata


def _object(value: Any) -> dict[str, Any] | None:
    """Return `value` if it is an object, or a text that spells one."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None
