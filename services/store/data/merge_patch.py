"""JSON Merge Patch."""

import json
from collections.abc import Mapping

from services.common.errors import MetadataError
from services.common.metadata import parse_metadata


def merged(metadata_json: str, patch_json: str) -> str:
    """Return the metadata with the patch applied: given keys are set, null removes one, objects merge.

    Source: RFC 7396, "JSON Merge Patch".

    Raises:
        MetadataError: the patch is no JSON object, or the outcome cannot be metadata.
    """
    return spelt(_merged(parse_metadata(metadata_json), parse_metadata(patch_json)))


def spelt(metadata: object) -> str:
    """Return `metadata` as JSON.

    Raises:
        MetadataError: it is too large or too deep, or a number does not fit a float.
    """
    try:
        text = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise MetadataError(f"has a number that is out of range: {error}") from error
    parse_metadata(text)
    return text


def _merged(target: object, patch: object) -> object:
    if not isinstance(patch, Mapping):
        return patch
    outcome = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            outcome.pop(key, None)
        else:
            outcome[key] = _merged(outcome.get(key), value)
    return outcome
