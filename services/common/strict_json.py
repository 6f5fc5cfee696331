"""Strict parsing of JSON: without NaN, infinity and lone surrogates."""

import json
from typing import Any


def parse_json(text: str) -> Any:
    """Parse `text`.

    Raises:
        ValueError: it is not JSON, or holds NaN, infinity or a lone surrogate.
        RecursionError: it is nested too deeply.
    """
    value = json.loads(text, parse_constant=_refuse_constant)
    if "\\u" in text:  # an escape may be a lone surrogate, which cannot be encoded
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")
