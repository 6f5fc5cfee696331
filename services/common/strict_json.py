"""JSON as callers send it: nothing in it that JSON does not know, or that could not be sent on."""

import json
from typing import Any


def parse_json(text: str) -> Any:
    """Return what `text` spells.

    Raises:
        ValueError: it is no JSON, or holds NaN, infinity or half a character.
        RecursionError: it is too deep to read.
    """
    value = json.loads(text, parse_constant=_no_constant)
    if "\\u" in text:  # an escape may spell half a character, which no text that is sent can hold
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")
