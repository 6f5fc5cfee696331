"""Manifests of backups and snapshots: JSON that names its format, followed by a line with its SHA-256."""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

_SEAL_BYTES = len(f"\n{hashlib.sha256().hexdigest()}\n")


class ManifestError(Exception):
    """A manifest that is damaged, or of a format that cannot be read; the message continues the manifest's name."""


def encode_manifest(fields: Mapping[str, Any], format: int) -> bytes:
    """Return `fields`, which JSON can hold, as a manifest of `format`."""
    return _sealed(json.dumps({**fields, "format": format}, indent=1, sort_keys=True).encode())


def decode_manifest(content: bytes, readable: Collection[int]) -> dict[str, Any]:
    """Return the fields that `encode_manifest` was given.

    Raises:
        ManifestError: the content is damaged, or its format is none of those `readable`.
    """
    body = content[:-_SEAL_BYTES]
    if _sealed(body) != content:
        raise ManifestError("is not as it was written: its SHA-256 differs")
    fields: dict[str, Any] = json.loads(body)
    found = fields.pop("format", None)
    if found not in readable:
        raise ManifestError(f"has format {found}, this version of Medley reads {', '.join(map(str, readable))}")
    return fields


def _sealed(body: bytes) -> bytes:
    return body + f"\n{hashlib.sha256(body).hexdigest()}\n".encode()
