"""What a snapshot consists of: one JSON file, written last, which names all others with their sizes and checksums."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from medley.manifest import ManifestError, decode_manifest, encode_manifest
from services.common.index_config import Exact, Hnsw, IndexConfig, Ivf
from services.common.versions import Version
from services.search.core.change_feed import Table

FORMAT = 1

IndexKind = Exact | Hnsw | Ivf


class UnusableSnapshotError(Exception):
    """A snapshot, or a part of it, cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A file of the snapshot, and how many items or vectors it holds."""

    file: str
    count: int
    size_bytes: int
    crc32: int


@dataclass(frozen=True, slots=True)
class SavedAnnIndex:
    """An approximate index: how it was built, as JSON, the slots that it knows, and its own file, in parts."""

    kind: Mapping[str, Any]
    current: Sequence[SnapshotFile]
    parts: Sequence[SnapshotFile]


@dataclass(frozen=True, slots=True)
class SavedSpace:
    """A space as it was: its vectors, and the approximate index over them, if there was one."""

    name: str
    dimensions: int
    metric: str
    fingerprint: str
    parts: Sequence[SnapshotFile]
    built: SavedAnnIndex | None

    def ann_index_for(self, config: IndexConfig) -> SavedAnnIndex | None:
        """Return the approximate index if it is as `config` asks for."""
        return self.built if self.built and self.built.kind == encode_kind(config.kind) else None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A snapshot of one version of a collection; `rows` hold ids and metadata in the order of the items' numbers."""

    collection: str
    version: Version
    items: int
    rows: Sequence[SnapshotFile]
    spaces: Sequence[SavedSpace]

    def parts(self) -> Sequence[SnapshotFile]:
        """Return all files but the manifest."""
        of_spaces = [part for space in self.spaces for part in space.parts]
        built = [space.built for space in self.spaces if space.built]
        return [*self.rows, *of_spaces, *(part for each in built for part in (*each.current, *each.parts))]

    def check(self, table: Table) -> None:
        """Check that the snapshot is of `table`.

        Raises:
            UnusableError: it is of another one, or of a version that is still to come.
        """
        if self.collection != table.collection or self.version.uid != table.version.uid:
            raise UnusableSnapshotError(f"it is of {self.collection} {self.version.uid}, made anew since")
        if self.version.number > table.version.number:
            raise UnusableSnapshotError(f"it is of version {self.version}, the store is at {table.version}")
        saved = {space.name: (space.dimensions, space.metric, space.fingerprint) for space in self.spaces}
        now = {space.name: (space.dimensions, space.metric.value, space.fingerprint) for space in table.spaces}
        if saved != now:
            raise UnusableSnapshotError(f"its spaces are {saved}, the collection has {now}")


def encode_kind(kind: IndexKind) -> Mapping[str, Any]:
    """Return `kind` as JSON can spell it; only equal ones are spelt alike."""
    plain: Mapping[str, Any] = json.loads(json.dumps({"kind": type(kind).__name__, **asdict(kind)}, default=_value))
    return plain


def encode(manifest: Manifest) -> bytes:
    """Return `manifest` as a file."""
    return encode_manifest({**asdict(manifest), "version": str(manifest.version)}, FORMAT)


def decode(content: bytes) -> Manifest:
    """Return what `encode` wrote.

    Raises:
        UnusableError: it is damaged, or of another format.
    """
    try:
        read = decode_manifest(content, [FORMAT])
        version = Version.parse(read["version"])
        spaces = [_space(space) for space in read["spaces"]]
        return Manifest(read["collection"], version, read["items"], _parts(read["rows"]), spaces)
    except ManifestError as error:
        raise UnusableSnapshotError(f"its manifest {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UnusableSnapshotError(f"its manifest is none: {error!r}") from error


def _space(read: dict[str, Any]) -> SavedSpace:
    built = read["built"]
    if built is not None:
        built = SavedAnnIndex(built["kind"], _parts(built["current"]), _parts(built["parts"]))
    return SavedSpace(**{**read, "parts": _parts(read["parts"]), "built": built})


def _parts(read: Sequence[dict[str, Any]]) -> Sequence[SnapshotFile]:
    return [SnapshotFile(**part) for part in read]


def _value(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(type(value))
