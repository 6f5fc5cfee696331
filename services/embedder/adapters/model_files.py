"""Verification of a model's files by their hashes."""

import hashlib
from pathlib import Path

from services.embedder.core.catalog import ModelFile
from services.embedder.core.errors import ModelFileError


def verify_file(file: ModelFile) -> Path:
    """Return the path of `file` if its bytes have the expected hash.

    Raises:
        ModelFileError: the hash is another one, or the file cannot be read.
    """
    try:
        with file.path.open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(file.path, error.strerror or str(error)) from error
    if actual != file.sha256:
        raise ModelFileError(file.path, f"expected sha256 {file.sha256}, it has {actual}")
    return file.path
