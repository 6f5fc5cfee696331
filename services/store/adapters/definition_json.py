"""A collection's definition as JSON."""

import json
from dataclasses import asdict
from datetime import datetime
from enum import Enum
from typing import Any

from services.common.vectors import Metric
from services.store.rows import Content, Definition, Space

FORMAT = 1


def to_json(definition: Definition) -> str:
    """Return `definition` as JSON."""
    return json.dumps({"format": FORMAT, **asdict(definition)}, default=_plain, indent=2)


def from_json(text: str) -> Definition:
    """Return the definition that `to_json` wrote.

    Raises:
        ValueError: it was written by a later version of the store, or by hand.
    """
    fields = json.loads(text)
    if fields.pop("format") != FORMAT:
        raise ValueError(f"unknown format of a collection's definition: {text[:200]}")
    spaces = tuple(_space(space) for space in fields.pop("spaces"))
    return Definition(spaces=spaces, created=datetime.fromisoformat(fields.pop("created")), **fields)


def _space(fields: dict[str, Any]) -> Space:
    metric, sources = Metric(fields.pop("metric")), fields.pop("sources")
    return Space(metric=metric, sources=tuple(map(Content, sources)), **fields)


def _plain(value: datetime | Enum) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value.value)
