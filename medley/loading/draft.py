"""An input on its way: what it will be once stored, told without keeping the bytes of its file."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from medley._transport import encode
from medley.inputs import BadInputError
from medley.values import Item, NewItem, Source

MAX_WORDS_BYTES = 16 * 2**20
"""Text and metadata larger than this are far beyond what a server takes, and would break the stream of the others."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An item to send, where it came from, and the hash of its media ("" without)."""

    name: str
    item: NewItem
    sha256: str

    @classmethod
    def of(cls, name: str, item: NewItem) -> "Draft":
        """Return the draft of `item`, hashing its media.

        Raises:
            BadInputError: it cannot be sent, or its file cannot be read.
        """
        _check_words(item)
        try:
            return cls(name, item, _sha256(item.media))
        except OSError as error:
            raise unreadable(error) from error

    @property
    def id(self) -> str:
        """Id of the item."""
        return self.item.id

    def is_stored_as(self, stored: Item) -> bool:
        """Whether `stored` has this text, these metadata and these media already."""
        stored_sha256 = stored.media.sha256 if stored.media else ""
        texts_agree = (stored.text or None) == (self.item.text or None)
        return texts_agree and stored_sha256 == self.sha256 and same_json(stored.metadata, self.item.metadata)


def same_json(left: object, right: object) -> bool:
    """Whether two values are the same JSON: numbers by value, keys in any order; true is not 1, None is {}."""
    match left, right:
        case (bool(), _) | (_, bool()):
            return left is right
        case dict() | None, dict() | None:
            mine, other = left or {}, right or {}
            return mine.keys() == other.keys() and all(same_json(value, other[key]) for key, value in mine.items())
        case list() | tuple(), list() | tuple():
            return len(left) == len(right) and all(map(same_json, left, right))
        case _:
            return left == right


def unreadable(error: OSError) -> BadInputError:
    """Return what to say of a file that cannot be read."""
    return BadInputError(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _check_words(item: NewItem) -> None:
    words = (item.id, item.text or "", encode.spelt(item.metadata))
    try:
        size = sum(len(word.encode()) for word in words)
    except UnicodeEncodeError as error:
        raise BadInputError(f"not Unicode: {error.object[error.start : error.end]!a}") from error
    if size > MAX_WORDS_BYTES:
        raise BadInputError(f"text and metadata of {size} bytes, {MAX_WORDS_BYTES} at most")


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
