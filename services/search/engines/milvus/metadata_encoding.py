"""Metadata as Milvus can filter it with no doubt about types, missing values or special characters.

What Milvus makes of JSON differs between its versions: missing keys, null, booleans beside numbers, whole numbers over
2**53, wildcards within strings. So an item carries, beside its vector, what its metadata come to:

* `tokens`, a list of short hashes: one for each path that has a value, one for each value that equals something, one
  for each kind of value there is at a path. Whether a list contains a string has one meaning everywhere.
* `bounds`, by path and kind the least and the greatest value, spelt so that strings compare as the values do. Among
  several values one is greater than x exactly where the greatest is.

Values are cut to `MAX_ENCODED`: a shorter operand compares with what is left as with the whole.
"""

import json
import math
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b

from services.common.filters import Path, Scalar

MAX_ENCODED = 512
MAX_TOKENS = 4096
MAX_BOUNDS_BYTES = 60_000
TOKEN_BYTES = 20

_HASH_BYTES = 15
_EXPONENT_BIAS = 2**31
_COMPLEMENT = str.maketrans("0123456789abcdef", "fedcba9876543210")
_AFTER_ALL_DIGITS = "g"
_SEPARATOR = "."
_BOUND_BYTES = TOKEN_BYTES + 8  # of a name in JSON, with quotes and comma


class Kind(Enum):
    """What is ordered at a path."""

    NUMBER = "n"
    STRING = "s"


class Bound(Enum):
    """Which of a path's values: the only one, the least, the greatest, or all joined by `_SEPARATOR`."""

    ONLY = "o"
    LEAST = "l"
    GREATEST = "g"
    JOINED = "j"


@dataclass(frozen=True, slots=True)
class EncodedMetadata:
    """What metadata come to."""

    tokens: Sequence[str]
    bounds: Mapping[str, str]


def encode_metadata(metadata_json: str) -> EncodedMetadata:
    """Return what `metadata_json`, an object or "", comes to.

    Paths that do not fit are left out, the largest first; `omitted_token` says which, or that there are more.
    """
    paths = [_at(path, value) for path, value in _walk(json.loads(metadata_json or "{}"), ())]
    paths.sort(key=lambda entry: (len(entry.tokens), entry.bounds_bytes))
    stored: list[_AtPath] = []
    tokens, bounds_bytes = 0, 0
    for entry in paths:
        tokens += len(entry.tokens)
        bounds_bytes += entry.bounds_bytes
        if tokens > MAX_TOKENS // 2 or bounds_bytes > MAX_BOUNDS_BYTES:
            break
        stored.append(entry)
    return EncodedMetadata(
        [token for entry in stored for token in entry.tokens] + _omitted(paths[len(stored) :]),
        {name: encoded for entry in stored for name, encoded in entry.bounds.items()},
    )


def item_token(item_id: str) -> str:
    """Return a short name for an id, of characters that need no escape."""
    return _hash("i", item_id)


def exists_token(path: Path) -> str:
    """Return the token of items that have a value at `path`, null counting as none."""
    return _hash("x", _key(path))


def equal_token(path: Path, value: Scalar) -> str:
    """Return the token of items that have `value`, or a list with it, at `path`."""
    match value:
        case bool():
            return _hash("b", _key(path), str(value))
        case str():
            return _hash("s", _key(path), value)
        case _:
            return _hash("n", _key(path), encode_number(value))


def kind_token(path: Path, kind: Kind, *, several: bool) -> str:
    """Return the token of items that have one value of `kind` at `path`, or several different ones."""
    return _hash("k", _key(path), kind.value, str(several))


def omitted_token(path: Path | None = None) -> str:
    """Return the token of items of which what is at `path` was left out; for None, more than can be told."""
    return _hash("-", "" if path is None else _key(path))


def any_omitted_token() -> str:
    """Return the token of items of which anything was left out."""
    return _hash("-", "some")


def bound_name(path: Path, kind: Kind, bound: Bound) -> str:
    """Return the name under which `bounds` holds a bound."""
    return f"{_key(path)}{kind.value}{bound.value}"


def encode_string(value: str) -> str:
    """Return `value` in characters that need no escape: it orders as `value` does, and so do its beginnings."""
    return value.encode("utf-8", "surrogatepass").hex()


def encode_number(value: int | float) -> str:
    """Return `value` so that strings compare as the numbers do, whole or not, exactly: sign, exponent, mantissa."""
    if value == 0:
        return "2"
    if isinstance(value, float) and math.isinf(value):
        return "4" if value > 0 else "0"
    numerator, denominator = abs(value).as_integer_ratio()
    bits = numerator.bit_length()
    exponent = bits - denominator.bit_length() + 1
    mantissa = f"{numerator << -bits % 4:x}".rstrip("0")
    encoded = f"{exponent + _EXPONENT_BIAS:08x}{mantissa}"
    return f"3{encoded}" if value > 0 else f"1{encoded.translate(_COMPLEMENT)}{_AFTER_ALL_DIGITS}"


@dataclass(slots=True)
class _AtPath:
    path: Path
    tokens: list[str]
    bounds: dict[str, str] = field(default_factory=dict)

    @property
    def bounds_bytes(self) -> int:
        return sum(len(encoded) + _BOUND_BYTES for encoded in self.bounds.values())

    def order(self, kind: Kind, values: Sequence[str]) -> None:
        """Let comparisons by order know `values`, spelt."""
        if not values:
            return
        cut = sorted({value[:MAX_ENCODED] for value in values})
        self.tokens.append(kind_token(self.path, kind, several=len(cut) > 1))
        if len(cut) == 1:
            self._put(kind, Bound.ONLY, cut[0])
            return
        self._put(kind, Bound.LEAST, cut[0])
        self._put(kind, Bound.GREATEST, cut[-1])
        if kind is Kind.STRING:
            self._put(kind, Bound.JOINED, _SEPARATOR + _SEPARATOR.join(cut))

    def _put(self, kind: Kind, bound: Bound, encoded: str) -> None:
        self.bounds[bound_name(self.path, kind, bound)] = encoded


def joined_pattern(prefix: str) -> str:
    """Return the LIKE pattern of joined strings of which one begins with `prefix`, spelt."""
    return f"%{_SEPARATOR}{prefix}%"


def _at(path: Path, value: object) -> _AtPath:
    elements = value if isinstance(value, list) else [value]
    scalars = [element for element in elements if isinstance(element, bool | str | int | float)]
    tokens = dict.fromkeys([exists_token(path), *(equal_token(path, scalar) for scalar in scalars)])
    entry = _AtPath(path, list(tokens))
    numbers = [scalar for scalar in scalars if isinstance(scalar, int | float) and not isinstance(scalar, bool)]
    entry.order(Kind.NUMBER, [encode_number(number) for number in numbers])
    entry.order(Kind.STRING, [encode_string(scalar) for scalar in scalars if isinstance(scalar, str)])
    return entry


def _walk(value: Mapping[str, object], above: Path) -> Iterator[tuple[Path, object]]:
    """Yield every path with a value; an empty key is in no path that a filter can ask for."""
    for key, child in value.items():
        if key and child is not None:
            path = (*above, key)
            yield path, child
            if isinstance(child, Mapping):
                yield from _walk(child, path)


def _omitted(paths: Sequence[_AtPath]) -> list[str]:
    if not paths:
        return []
    if len(paths) > MAX_TOKENS // 4:
        return [any_omitted_token(), omitted_token()]
    return [any_omitted_token(), *(omitted_token(entry.path) for entry in paths)]


def _key(path: Path) -> str:
    return _hash("p", *path)


def _hash(*parts: str) -> str:
    digest = blake2b(digest_size=_HASH_BYTES)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return urlsafe_b64encode(digest.digest()).decode()
