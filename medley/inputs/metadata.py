"""Values of manifests as JSON metadata."""

import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

from medley.inputs.inputs import BadInputError

INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,14})")
NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})\.[0-9]{1,15}")
BOOLEANS = {"true": True, "false": False}


def to_metadata(row: Mapping[str, object]) -> dict[str, object]:
    """Return `row` as metadata: without None and NaN, dates and times in ISO 8601, decimals as numbers.

    Raises:
        BadInputError: a value has no JSON form.
    """
    values = {name: _json(name, value) for name, value in row.items()}
    return {name: value for name, value in values.items() if value is not None}


def parse_cell(cell: str) -> str | int | float | bool | None:
    """Return the value of a cell of text: a number or boolean in its canonical form, None if empty, else the text.

    Numbers that would not be written back unchanged, like "007" or "1e5", stay text.
    """
    if not cell.strip():
        return None
    if INTEGER.fullmatch(cell):
        return int(cell)
    if NUMBER.fullmatch(cell):
        return float(cell)
    return BOOLEANS.get(cell.lower(), cell)


def _json(name: str, value: object) -> object:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return _finite(name, value)
        case Decimal():
            return _decimal(name, value)
        case datetime() | date() | time():
            return None if value != value else value.isoformat()  # noqa: PLR0124  # pandas' NaT is a datetime
        case timedelta():
            return value.total_seconds()
        case UUID():
            return str(value)
        case Mapping():
            return {str(key): _json(f"{name}.{key}", inner) for key, inner in value.items()}
        case list() | tuple():
            return [_json(name, inner) for inner in value]
        case bytes():
            raise BadInputError(f"column {name!r} holds bytes, which metadata cannot hold")
        case _:
            raise BadInputError(f"column {name!r} holds a {type(value).__name__}, which metadata cannot hold")


def _finite(name: str, value: float) -> float | None:
    if math.isinf(value):
        raise BadInputError(f"column {name!r} is infinite, which JSON cannot hold")
    return None if math.isnan(value) else value


def _decimal(name: str, value: Decimal) -> int | float | None:
    return int(value) if value.is_finite() and value == value.to_integral_value() else _finite(name, float(value))
