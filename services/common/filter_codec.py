"""Conversion of filters from and to the API's message, and from JSON operators."""

import json
import sys
from collections.abc import Mapping

from medley.v1 import filter_pb2
from services.common.errors import FilterError
from services.common.filters import AllOf, AnyOf, Comparison, Exists, Filter, Not, Operator, Scalar
from services.common.strict_json import parse_json

MAX_DEPTH = 32
MAX_NODES = 1000
MAX_JSON_CHARACTERS = 100_000
LARGEST_NUMBER = sys.float_info.max

_OPERATORS = {kind.value: kind for kind in Operator}
_FROM_MESSAGE = {filter_pb2.Operator.Value(f"OPERATOR_{kind.name}"): kind for kind in Operator}
_TO_MESSAGE = {kind: number for number, kind in _FROM_MESSAGE.items()}


def from_where(where: filter_pb2.Where) -> Filter | None:
    """Return the filter in `where`; None if it has none.

    Raises:
        FilterError: the filter is invalid.
    """
    match where.WhichOneof("format"):
        case "tree":
            return from_message(where.tree)
        case "json":
            return from_json(where.json)
        case _:
            return None


def from_message(message: filter_pb2.Filter) -> Filter:
    """Return the filter in `message`.

    Raises:
        FilterError: a node is unset, an operator unknown, an operand of the wrong type, or the tree is too large.
    """
    return _Reader().message(message, MAX_DEPTH)


def from_json(text: str) -> Filter:
    """Parse the JSON object `text` with $-operators; a bare value means $eq, several keys mean $and.

    Raises:
        FilterError: it is not a JSON object, an operator is unknown, an operand of the wrong type, or it is too large.
    """
    if len(text) > MAX_JSON_CHARACTERS:
        raise FilterError(f"{len(text)} characters, {MAX_JSON_CHARACTERS} at most")
    try:
        parsed = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise FilterError(f"not JSON: {error}") from error
    return _Reader().json(parsed, MAX_DEPTH)


def to_message(condition: Filter) -> filter_pb2.Filter:
    """Return `condition` as the API's message."""
    match condition:
        case AllOf(filters):
            return filter_pb2.Filter(all_of=filter_pb2.AllOf(filters=map(to_message, filters)))
        case AnyOf(filters):
            return filter_pb2.Filter(any_of=filter_pb2.AnyOf(filters=map(to_message, filters)))
        case Not(child):
            return filter_pb2.Filter(negation=filter_pb2.Not(filter=to_message(child)))
        case Exists(path, exists):
            return filter_pb2.Filter(exists=filter_pb2.Exists(path=path, exists=exists))
        case Comparison(path, kind, operands):
            operator = _TO_MESSAGE[kind]
            comparison = filter_pb2.Comparison(path=path, operator=operator, operands=map(_to_scalar, operands))
            return filter_pb2.Filter(comparison=comparison)


def split_path(path: str) -> tuple[str, ...]:
    r"""Return the keys of a dotted path; `\.` is a dot within a key."""
    return tuple(part.replace("\0", ".") for part in path.replace("\\.", "\0").split("."))


class _Reader:
    """Parses one filter and limits its nodes and depth."""

    def __init__(self) -> None:
        self._nodes = 0

    def message(self, message: filter_pb2.Filter, depth: int) -> Filter:
        self._count(depth)
        match message.WhichOneof("node"):
            case "all_of":
                return AllOf(tuple(self.message(child, depth - 1) for child in message.all_of.filters))
            case "any_of":
                return AnyOf(tuple(self.message(child, depth - 1) for child in message.any_of.filters))
            case "negation":
                return Not(self.message(message.negation.filter, depth - 1))
            case "exists":
                return Exists(tuple(message.exists.path), message.exists.exists)
            case "comparison":
                return _from_comparison(message.comparison)
            case _:
                raise FilterError("a node is empty")

    def json(self, value: object, depth: int) -> Filter:
        self._count(depth)
        if not isinstance(value, Mapping):
            raise FilterError(f"{json.dumps(value)[:64]} is not an object of conditions")
        conditions = tuple(self._entry(key, child, depth - 1) for key, child in value.items())
        return conditions[0] if len(conditions) == 1 else AllOf(conditions)

    def _entry(self, key: str, value: object, depth: int) -> Filter:
        match key:
            case "$and":
                return AllOf(self._children(key, value, depth))
            case "$or":
                return AnyOf(self._children(key, value, depth))
            case "$not":
                return Not(self.json(value, depth))
            case _ if key.startswith("$"):
                raise FilterError(f"unknown operator {key!r}; there are $and, $or, $not and those of a field")
            case _:
                return self._field(key, value, depth)

    def _children(self, key: str, value: object, depth: int) -> tuple[Filter, ...]:
        if not isinstance(value, list) or not value:
            raise FilterError(f"{key} takes a list of at least one condition")
        return tuple(self.json(child, depth) for child in value)

    def _field(self, key: str, value: object, depth: int) -> Filter:
        path = split_path(key)
        if not isinstance(value, Mapping):
            return Comparison(path, Operator.EQUAL, (_scalar("$eq", value),))
        if not value:
            raise FilterError(f"{key!r} has no operator")
        conditions = tuple(self._condition(path, name, operand, depth) for name, operand in value.items())
        return conditions[0] if len(conditions) == 1 else AllOf(conditions)

    def _condition(self, path: tuple[str, ...], name: str, operand: object, depth: int) -> Filter:
        self._count(depth)
        if name == "$exists":
            if not isinstance(operand, bool):
                raise FilterError(f"$exists takes true or false, got {json.dumps(operand)[:64]}")
            return Exists(path, operand)
        if name not in _OPERATORS:
            raise FilterError(f"unknown operator {name!r}; there are $exists {' '.join(_OPERATORS)}")
        return Comparison(path, _OPERATORS[name], _operands(name, operand))

    def _count(self, depth: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise FilterError(f"over {MAX_NODES} conditions")
        if depth <= 0:
            raise FilterError(f"over {MAX_DEPTH} levels deep")


def _operands(name: str, operand: object) -> tuple[Scalar, ...]:
    if name not in ("$in", "$nin"):
        return (_scalar(name, operand),)
    if not isinstance(operand, list):
        raise FilterError(f"{name} takes a list, got {json.dumps(operand)[:64]}")
    return tuple(_scalar(name, element) for element in operand)


def _scalar(name: str, value: object) -> Scalar:
    if not isinstance(value, str | int | float | bool):
        raise FilterError(f"{name} cannot compare with {json.dumps(value)[:64]}")
    if isinstance(value, int | float) and abs(value) > LARGEST_NUMBER:
        raise FilterError(f"{name} cannot compare with a number over {LARGEST_NUMBER:g}")
    return value


def _from_comparison(message: filter_pb2.Comparison) -> Comparison:
    kind = _FROM_MESSAGE.get(message.operator)
    if kind is None:
        raise FilterError(f"unknown operator {message.operator}")
    return Comparison(tuple(message.path), kind, tuple(_from_scalar(operand) for operand in message.operands))


def _from_scalar(message: filter_pb2.Scalar) -> Scalar:
    kind = message.WhichOneof("kind")
    if kind is None:
        raise FilterError("an operand is empty")
    value: Scalar = getattr(message, kind)
    return value


def _to_scalar(value: Scalar) -> filter_pb2.Scalar:
    match value:
        case bool():
            return filter_pb2.Scalar(boolean=value)
        case str():
            return filter_pb2.Scalar(string=value)
        case int() if -(2**63) <= value < 2**63:
            return filter_pb2.Scalar(integer=value)
        case _:
            return filter_pb2.Scalar(double=value)
