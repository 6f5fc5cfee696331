"""JSON Merge Patch."""

import json
from collections.abc import Mapping

from services.common.errors import MetadataError
from services.common.metadata import parse_metadata


def apply_merge_patch(metadata_json: str, patch_json: str) -> str:
    """Return the metadata with the patch applied: its keys are set, null removes a key, objects are merged.

    Source: RFC 7396, "JSON Merge Patch".

    Raises:
        MetadataError: the patch is no JSON object, or the result is too large, too deep or has a number out of range.
    """
    return _to_json(_merge(parse_metadata(metadata_json), parse_metadata(patch_json)))


def _to_json(metadata: object) -> str:
    try:
        text = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise MetadataError(f"has a number that is out of range: {error}") from error
    parse_metadata(text)
    return text


def _merge(target: object, patch: object) -> object:
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result
