"""Filters as Milvus expressions over `tokens` and `bounds`: the same answers as `services.common.filters.matches`.

Every comparison of a bound stands behind a token that says the bound is there, so that nothing depends on what a Milvus
makes of a missing key, beneath a negation least of all.
"""

from collections.abc import Iterable, Iterator

from services.common.errors import FilterError
from services.common.filters import NEGATIONS, AllOf, AnyOf, Comparison, Exists, Filter, Not, Operator, Path, Scalar
from services.search.engines.milvus.metadata_encoding import (
    MAX_ENCODED,
    Bound,
    Kind,
    any_omitted_token,
    bound_name,
    encode_number,
    encode_string,
    equal_token,
    exists_token,
    joined_pattern,
    kind_token,
    omitted_token,
)

TRUE, FALSE = "born > 0", "born < 0"

_SYMBOLS = {
    Operator.GREATER: ">",
    Operator.GREATER_OR_EQUAL: ">=",
    Operator.LESS: "<",
    Operator.LESS_OR_EQUAL: "<=",
}
_UPWARDS = (Operator.GREATER, Operator.GREATER_OR_EQUAL)


def expression(condition: Filter) -> str:
    """Return `condition` as an expression.

    Raises:
        FilterError: an operand that is compared by order is longer than what is kept of values.
    """
    match condition:
        case AllOf(filters):
            return _join("and", map(expression, filters), TRUE)
        case AnyOf(filters):
            return _join("or", map(expression, filters), FALSE)
        case Not(child):
            return f"not ({expression(child)})"
        case Exists(path, exists):
            return _contains_any([exists_token(path)]) if exists else f"not ({_contains_any([exists_token(path)])})"
        case Comparison(path, operator, operands) if operator in NEGATIONS:
            return f"not ({expression(Comparison(path, NEGATIONS[operator], operands))})"
        case Comparison(path, Operator.EQUAL | Operator.IN, operands):
            return _contains_any(equal_token(path, operand) for operand in operands)
        case Comparison(path, Operator.STARTS_WITH, (prefix,)):
            return _prefix(path, str(prefix))
        case Comparison(path, operator, (operand,)):
            return _ordered(path, operator, operand)
    raise AssertionError(condition)


def any_omitted() -> str:
    """Return the expression of items of which anything was left out."""
    return _contains_any([any_omitted_token()])


def uncertain(condition: Filter) -> str:
    """Return the expression of items for which the answer to `condition` is not known: too much was left out."""
    return _join("or", (_omitted(path) for path in dict.fromkeys(_paths(condition))), FALSE)


def _omitted(path: Path) -> str:
    beyond = f"({_contains_any([omitted_token()])}) and not ({_contains_any([exists_token(path)])})"
    return f"({_contains_any([omitted_token(path)])}) or ({beyond})"


def _ordered(path: Path, operator: Operator, operand: Scalar) -> str:
    kind = Kind.STRING if isinstance(operand, str) else Kind.NUMBER
    encoded = encode_string(operand) if isinstance(operand, str) else encode_number(operand)
    bound = f'{_SYMBOLS[operator]} "{_check_length(operator, encoded)}"'
    extreme = Bound.GREATEST if operator in _UPWARDS else Bound.LEAST
    return _by_number(path, kind, (Bound.ONLY, bound), (extreme, bound))


def _prefix(path: Path, prefix: str) -> str:
    if not prefix:
        return _contains_any(kind_token(path, Kind.STRING, several=several) for several in (False, True))
    encoded = _check_length(Operator.STARTS_WITH, encode_string(prefix))
    joined = f'like "{joined_pattern(encoded)}"'
    return _by_number(path, Kind.STRING, (Bound.ONLY, f'like "{encoded}%"'), (Bound.JOINED, joined))


def _by_number(path: Path, kind: Kind, only: tuple[Bound, str], several: tuple[Bound, str]) -> str:
    """Return what holds where there is one value and `only` is true of it, or several and `several` is."""
    parts = [
        f'({_kind(path, kind, many)} and bounds["{bound_name(path, kind, bound)}"] {test})'
        for many, (bound, test) in ((False, only), (True, several))
    ]
    return " or ".join(parts)


def _kind(path: Path, kind: Kind, several: bool) -> str:
    return _contains_any([kind_token(path, kind, several=several)])


def _contains_any(tokens: Iterable[str]) -> str:
    encoded = [f'"{token}"' for token in dict.fromkeys(tokens)]
    if len(encoded) == 1:
        return f"array_contains(tokens, {encoded[0]})"
    return f"array_contains_any(tokens, [{', '.join(encoded)}])"


def _check_length(operator: Operator, encoded: str) -> str:
    if len(encoded) >= MAX_ENCODED:
        most = MAX_ENCODED // 2 - 1
        raise FilterError(f"Milvus takes at most {most} bytes of text for {operator.value}, got {len(encoded) // 2}")
    return encoded


def _join(word: str, parts: Iterable[str], none: str) -> str:
    return f" {word} ".join(f"({part})" for part in parts) or none


def _paths(condition: Filter) -> Iterator[Path]:
    match condition:
        case AllOf(filters) | AnyOf(filters):
            for child in filters:
                yield from _paths(child)
        case Not(child):
            yield from _paths(child)
        case Comparison(path) | Exists(path):
            yield path
