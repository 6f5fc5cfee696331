"""Parsing of metadata: a JSON object of limited size and depth."""

from services.common.errors import MetadataError
from services.common.strict_json import parse_json

MAX_METADATA_BYTES = 2**20
MAX_METADATA_DEPTH = 32


def parse_metadata(metadata_json: str) -> dict[str, object]:
    """Parse the JSON object `metadata_json`; an empty string means an empty object.

    Raises:
        MetadataError: it is not a JSON object, holds NaN, infinity or a lone surrogate, or exceeds 1 MiB or 32 levels.
    """
    if len(metadata_json.encode()) > MAX_METADATA_BYTES:
        raise MetadataError(f"has {len(metadata_json.encode())} bytes, {MAX_METADATA_BYTES} at most")
    try:
        metadata = parse_json(metadata_json or "{}")
    except (ValueError, RecursionError) as error:
        raise MetadataError(f"is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise MetadataError(f"must be a JSON object, got {metadata_json[:64]}")
    if not _within_depth(metadata, MAX_METADATA_DEPTH):
        raise MetadataError(f"is over {MAX_METADATA_DEPTH} levels deep")
    return metadata


def _within_depth(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    children = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_within_depth(child, levels - 1) for child in children)
