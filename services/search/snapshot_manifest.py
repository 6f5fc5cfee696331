"""What a snapshot consists of: one JSON file, written last, which names all others with their sizes and checksums."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from services.common.index_config import IndexConfig
from services.common.versions import Version
from services.search.feed import Space, Table

FORMAT = 1


class UnusableError(Exception):
    """A snapshot, or a part of it, cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the snapshot, and how many items or vectors it holds."""

    file: str
    count: int
    size_bytes: int
    crc32: int


@dataclass(frozen=True, slots=True)
class SavedSpace:
    """A space as it was; `index` is how it was to be indexed, as JSON."""

    name: str
    dimensions: int
    metric: str
    passport: str
    index: Mapping[str, Any]
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A snapshot of one version of a collection; `rows` hold ids and metadata in the order of the items' numbers."""

    collection: str
    version: Version
    items: int
    rows: Sequence[Part]
    spaces: Sequence[SavedSpace]

    def check(self, table: Table) -> None:
        """Check that the snapshot is of `table`.

        Raises:
            UnusableError: it is of another one, or of a version that is still to come.
        """
        if self.collection != table.collection or self.version.uid != table.version.uid:
            raise UnusableError(f"it is of {self.collection} {self.version.uid}, made anew since")
        if self.version.number > table.version.number:
            raise UnusableError(f"it is of version {self.version}, the store is at {table.version}")
        saved = {space.name: (space.dimensions, space.metric, space.passport) for space in self.spaces}
        now = {space.name: (space.dimensions, space.metric.value, space.passport) for space in table.spaces}
        if saved != now:
            raise UnusableError(f"its spaces are {saved}, the collection has {now}")


def saved_space(space: Space, parts: Sequence[Part]) -> SavedSpace:
    """Return what a manifest says of `space`."""
    return SavedSpace(
        space.name, space.dimensions, space.metric.value, space.passport, spelt_config(space.config), parts
    )


def spelt_config(config: IndexConfig) -> Mapping[str, Any]:
    """Return `config` as JSON can spell it; equal configs are spelt alike."""
    spelt = {"kind": type(config.kind).__name__, **asdict(config)["kind"]}
    spelt |= {"exact_share": config.exact_share, "recall_floor": config.recall_floor}
    plain: Mapping[str, Any] = json.loads(json.dumps(spelt, default=_value))
    return plain


def encode(manifest: Manifest) -> bytes:
    """Return `manifest` as JSON, its SHA-256 on a line behind it."""
    body = json.dumps({"format": FORMAT, **asdict(manifest), "version": str(manifest.version)}, indent=1).encode()
    return body + b"\n" + _hash(body) + b"\n"


def decode(content: bytes) -> Manifest:
    """Return what `encode` wrote.

    Raises:
        UnusableError: it is damaged, or of another format.
    """
    body, _, told = content.removesuffix(b"\n").rpartition(b"\n")
    if _hash(body) != told:
        raise UnusableError("its manifest is damaged: the SHA-256 is another")
    try:
        read = json.loads(body)
        if read["format"] != FORMAT:
            raise UnusableError(f"it has format {read['format']}, not {FORMAT}")
        version = Version.parse(read["version"])
        spaces = [_space(space) for space in read["spaces"]]
        return Manifest(read["collection"], version, read["items"], _parts(read["rows"]), spaces)
    except (KeyError, TypeError, ValueError) as error:
        raise UnusableError(f"its manifest is none: {error!r}") from error


def _space(read: dict[str, Any]) -> SavedSpace:
    return SavedSpace(**{**read, "parts": _parts(read["parts"])})


def _parts(read: Sequence[dict[str, Any]]) -> Sequence[Part]:
    return [Part(**part) for part in read]


def _hash(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def _value(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(type(value))
