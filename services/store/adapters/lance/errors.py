"""Translates Lance's errors, which only their text tells apart."""

import re

from services.common.errors import ServiceUnavailableError, StorageFullError
from services.store.core.table import WriteConflictError

FULL_BUCKET = ("StorageFull", "QuotaExceeded", "507 Insufficient Storage")
FULL_DISK = ("No space left on device", "Disk quota exceeded")
CONFLICTS = ("Too many concurrent writers", "ommit conflict", "Incompatible transaction")


def raise_translated(error: Exception, uri: str) -> None:
    """Raise the store's error for a conflict, full storage or an unavailable object store; return for any other.

    Raises:
        WriteConflictError: another writer committed first.
        StorageFullError: the disk or the bucket is full.
        ServiceUnavailableError: the object store fails or does not answer.
    """
    raise_if_unavailable(error)
    text = str(error)
    if _contains(text, CONFLICTS):
        raise WriteConflictError from error
    if _contains(text, FULL_DISK):
        raise StorageFullError(uri) from error


def raise_if_unavailable(error: Exception) -> None:
    """Raise for an error of the object store, except a conflict; return for any other.

    Raises:
        StorageFullError: the bucket is full.
        ServiceUnavailableError: the object store fails or does not answer.
    """
    text = str(error)
    if "Generic S3 error" not in text or _contains(text, CONFLICTS):
        return
    if _contains(text, FULL_BUCKET):
        raise StorageFullError("the bucket") from error
    raise ServiceUnavailableError("object store", _s3_problem(text)) from error


def is_missing_file(error: Exception) -> bool:
    """Return whether `error` says that a file does not exist."""
    text = str(error)
    return "not found" in text.lower() or "does not exist" in text


def _contains(text: str, phrases: tuple[str, ...]) -> bool:
    return any(phrase in text for phrase in phrases)


def _s3_problem(text: str) -> str:
    """Return the code or status in S3's answer, where Lance passes it on."""
    found = re.search(r"<Code>(\w+)</Code>", text) or re.search(r"status code:? (\d+ \w+)", text)
    return f"says {found[1]}" if found else "does not answer"
