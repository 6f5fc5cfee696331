"""Filters on metadata: their tree and semantics. `filter_codec` parses them.

Every condition is either true or false for an item. A path that is missing or null satisfies no comparison except
NOT_EQUAL, NOT_IN and `Exists(..., False)`, which are exact negations. Values of different types never match; all
numbers are one type, booleans another. A list satisfies a comparison if any of its elements does. Paths lead through
objects, not through lists.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from services.common.errors import FilterError

Scalar = str | int | float | bool
Path = tuple[str, ...]


class Operator(Enum):
    """How a comparison compares; see `medley.v1.Operator`."""

    EQUAL = "$eq"
    NOT_EQUAL = "$ne"
    GREATER = "$gt"
    GREATER_OR_EQUAL = "$gte"
    LESS = "$lt"
    LESS_OR_EQUAL = "$lte"
    IN = "$in"
    NOT_IN = "$nin"
    STARTS_WITH = "$startsWith"


ORDERINGS: Mapping[Operator, Callable[[Any, Any], bool]] = {
    Operator.GREATER: operator.gt,
    Operator.GREATER_OR_EQUAL: operator.ge,
    Operator.LESS: operator.lt,
    Operator.LESS_OR_EQUAL: operator.le,
}
NEGATIONS: Mapping[Operator, Operator] = {Operator.NOT_EQUAL: Operator.EQUAL, Operator.NOT_IN: Operator.IN}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compares the value at `path` with `operands`: one, or for IN and NOT_IN one or more.

    Raises:
        FilterError: the path is empty, or an operand has the wrong type for the operator.
    """

    path: Path
    operator: Operator
    operands: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        _check_path(self.path)
        _check_operands(self.operator, self.operands)


@dataclass(frozen=True, slots=True)
class Exists:
    """Tests whether there is a value at `path`; null counts as none.

    Raises:
        FilterError: the path is empty.
    """

    path: Path
    exists: bool

    def __post_init__(self) -> None:
        _check_path(self.path)


@dataclass(frozen=True, slots=True)
class AllOf:
    """True when every one of `filters` is; with none, true."""

    filters: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True when at least one of `filters` is; with none, false."""

    filters: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    """True when `filter` is false."""

    filter: "Filter"


Filter = AllOf | AnyOf | Not | Comparison | Exists


def matches(condition: Filter, metadata: Mapping[str, object]) -> bool:
    """Return whether `metadata`, decoded JSON, satisfies `condition`. Other evaluations are tested against this."""
    match condition:
        case AllOf(filters):
            return all(matches(child, metadata) for child in filters)
        case AnyOf(filters):
            return any(matches(child, metadata) for child in filters)
        case Not(child):
            return not matches(child, metadata)
        case Exists(path, exists):
            return (value_at(path, metadata) is not None) is exists
        case Comparison(path, kind, operands):
            return _compare(kind, operands, value_at(path, metadata))


def canonical_key(condition: Filter) -> str:
    """Return a cache key that distinguishes 1, 1.0 and True, which are equal in Python."""
    return repr(condition)


def value_at(path: Path, metadata: Mapping[str, object]) -> object:
    """Return the value at `path`, None where there is none."""
    value: object = metadata
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def comparison_type(value: object) -> type | None:
    """Return the type as which `value` is compared: str, bool or float (any number); None if it is not comparable."""
    if isinstance(value, bool | str):
        return type(value)
    return float if isinstance(value, int | float) else None


def _compare(kind: Operator, operands: tuple[Scalar, ...], value: object) -> bool:
    if kind in NEGATIONS:
        return not _compare(NEGATIONS[kind], operands, value)
    elements = value if isinstance(value, list) else [value]
    return any(_holds(kind, element, operand) for element in elements for operand in operands)


def _holds(kind: Operator, element: object, operand: Scalar) -> bool:
    if comparison_type(element) is not comparison_type(operand):
        return False
    if kind is Operator.STARTS_WITH:
        return str(element).startswith(str(operand))
    return ORDERINGS[kind](element, operand) if kind in ORDERINGS else element == operand


def _check_path(path: Path) -> None:
    if not path or not all(path):
        raise FilterError(f"path {'.'.join(path)!r} has an empty key")


def _check_operands(kind: Operator, operands: tuple[Scalar, ...]) -> None:
    if not operands:
        raise FilterError(f"{kind.value} has no operand")
    if len(operands) > 1 and kind not in (Operator.IN, Operator.NOT_IN):
        raise FilterError(f"{kind.value} takes one operand, got {len(operands)}")
    for operand in operands:
        _check_operand(kind, operand)


def _check_operand(kind: Operator, operand: Scalar) -> None:
    if isinstance(operand, float) and math.isnan(operand):
        raise FilterError(f"{kind.value} cannot compare NaN")
    if kind is Operator.STARTS_WITH and not isinstance(operand, str):
        raise FilterError(f"{kind.value} takes a string, got {operand!r}")
    if kind in ORDERINGS and isinstance(operand, bool):
        raise FilterError(f"{kind.value} takes a number or a string, got {operand!r}")
