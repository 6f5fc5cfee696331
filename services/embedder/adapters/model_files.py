"""A model's files, trusted for their hashes."""

import hashlib
from pathlib import Path

from services.embedder.core.catalog import ModelFile
from services.embedder.core.errors import ModelFileError


def verified(file: ModelFile) -> Path:
    """Return the path of `file`, whose bytes have the hash they must.

    Raises:
        ModelFileError: they have another, or cannot be read.
    """
    try:
        with file.path.open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(file.path, error.strerror or str(error)) from error
    if actual != file.sha256:
        raise ModelFileError(file.path, f"expected sha256 {file.sha256}, it has {actual}")
    return file.path
