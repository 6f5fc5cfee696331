"""Validation of names and ids."""

import re

from services.common.errors import ArgumentError, IdError

MAX_ID_BYTES = 1024
_COLLECTION = re.compile(r"collections/[a-z][a-z0-9_-]{0,62}")
_TAG = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_SPACE = re.compile(r"[a-z][a-z0-9_]{0,62}")


def validate_collection_name(name: str) -> str:
    """Return `name` if it is `collections/` and 1 to 63 of a-z, 0-9, "_", "-", the first a letter.

    Raises:
        ArgumentError: it is not.
    """
    if not _COLLECTION.fullmatch(name):
        raise ArgumentError("collection", name, "must be collections/ and 1 to 63 of a-z 0-9 _ -, the first a letter")
    return name


def validate_space_name(name: str) -> str:
    """Return `name` if it is 1 to 63 of a-z, 0-9, "_", the first a letter.

    Raises:
        ArgumentError: it is not.
    """
    if not _SPACE.fullmatch(name):
        raise ArgumentError("space", name, "must be 1 to 63 of a-z 0-9 _, the first a letter")
    return name


def validate_tag(name: str) -> str:
    """Return `name` if it is 1 to 63 of a-z, 0-9, "_", "-", the first a letter.

    Raises:
        ArgumentError: it is not.
    """
    if not _TAG.fullmatch(name):
        raise ArgumentError("tag", name, "must be 1 to 63 of a-z 0-9 _ -, the first a letter")
    return name


def validate_item_id(item_id: str) -> str:
    """Return `item_id` if it has 1 to 1024 bytes of UTF-8 and no NUL.

    Raises:
        IdError: it has not.
    """
    if not item_id:
        raise IdError(item_id, "is empty")
    if "\0" in item_id:
        raise IdError(item_id, "has a NUL character")
    if len(item_id.encode()) > MAX_ID_BYTES:
        raise IdError(item_id, f"has {len(item_id.encode())} bytes, {MAX_ID_BYTES} at most")
    return item_id
