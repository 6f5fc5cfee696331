"""An input to be ingested, comparable with a stored item without keeping the bytes of its file."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from medley._transport import encode
from medley.inputs import BadInputError
from medley.values import Item, NewItem, Source

MAX_TEXT_BYTES = 16 * 2**20
"""Larger text and metadata exceed what a server accepts, and would break the stream with the other items."""


@dataclass(frozen=True, slots=True)
class PendingItem:
    """An item to send, the name of its input, and the hash of its media ("" without)."""

    name: str
    item: NewItem
    sha256: str

    @classmethod
    def of(cls, name: str, item: NewItem) -> "PendingItem":
        """Return the pending item of `item`, hashing its media.

        Raises:
            BadInputError: the item cannot be sent, or its file cannot be read.
        """
        _check_text(item)
        try:
            return cls(name, item, _sha256(item.media))
        except OSError as error:
            raise to_input_error(error) from error

    @property
    def id(self) -> str:
        """Id of the item."""
        return self.item.id

    def matches(self, stored: Item) -> bool:
        """Whether `stored` has the same text, metadata and media."""
        stored_sha256 = stored.media.sha256 if stored.media else ""
        texts_agree = (stored.text or None) == (self.item.text or None)
        return texts_agree and stored_sha256 == self.sha256 and json_equal(stored.metadata, self.item.metadata)


def json_equal(left: object, right: object) -> bool:
    """Whether two values are the same JSON: numbers by value, keys in any order; true is not 1, None is {}."""
    match left, right:
        case (bool(), _) | (_, bool()):
            return left is right
        case dict() | None, dict() | None:
            mine, other = left or {}, right or {}
            return mine.keys() == other.keys() and all(json_equal(value, other[key]) for key, value in mine.items())
        case list() | tuple(), list() | tuple():
            return len(left) == len(right) and all(map(json_equal, left, right))
        case _:
            return left == right


def to_input_error(error: OSError) -> BadInputError:
    """Return the error of an input whose file cannot be read."""
    return BadInputError(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _check_text(item: NewItem) -> None:
    texts = (item.id, item.text or "", encode.to_json(item.metadata))
    try:
        size = sum(len(text.encode()) for text in texts)
    except UnicodeEncodeError as error:
        raise BadInputError(f"not Unicode: {error.object[error.start : error.end]!a}") from error
    if size > MAX_TEXT_BYTES:
        raise BadInputError(f"text and metadata of {size} bytes, {MAX_TEXT_BYTES} at most")


def _sha256(media: Source | None) -> str:
    match media:
        case None:
            return ""
        case bytes():
            return hashlib.sha256(media).hexdigest()
        case str() | os.PathLike():
            with Path(media).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        case _:
            return media.sha256
