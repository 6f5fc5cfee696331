"""Format of a backup.

`manifest.json` is written last: a backup that has one is complete. It holds the collection's definition and the SHA-256
of every file of items; media are named by their SHA-256. While a backup is made, `progress.json` holds its progress.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medley.backup.destination import Destination
from medley.indexes import index_config
from medley.manifest import ManifestError, decode_manifest, encode_manifest
from medley.values import Collection, Item, Media, Space

FORMAT = 2
READABLE = (1, 2)
"""Formats that can be read: 1 has no indexes of spaces."""

MANIFEST = "manifest.json"
PROGRESS = "progress.json"


class BackupError(Exception):
    """A backup that cannot be made or restored."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of items: its path, hash and size, and the number of items."""

    path: str
    sha256: str
    size_bytes: int
    items: int


@dataclass(slots=True)
class Progress:
    """Progress of a backup: the version, the tag that keeps it, the files written, and the page to continue with.

    `listed` is set when the last page is written.
    """

    collection: str
    version: str
    tag: str
    files: list[File] = field(default_factory=list)
    page_token: str = ""
    listed: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """A complete backup. `media` has the size in bytes of each object by its SHA-256."""

    collection: str
    version: str
    spaces: tuple[Space, ...]
    items: int
    files: tuple[File, ...]
    media: Mapping[str, int]


def media_path(sha256: str) -> str:
    """Return the path of an object."""
    return f"media/{sha256[:2]}/{sha256}"


def write_progress(destination: Destination, progress: Progress) -> None:
    """Write the progress of a backup."""
    destination.write(PROGRESS, [encode_manifest(asdict(progress), FORMAT)])


def read_progress(destination: Destination) -> Progress | None:
    """Return the progress of an unfinished backup; None if there is none."""
    if destination.size(PROGRESS) is None:
        return None
    fields = _read(destination, PROGRESS)
    return Progress(**{**fields, "files": [File(**file) for file in fields["files"]]})


def write_manifest(
    destination: Destination, collection: Collection, progress: Progress, media: Mapping[str, int]
) -> Manifest:
    """Write the manifest, which completes a backup."""
    items = sum(file.items for file in progress.files)
    files = tuple(progress.files)
    manifest = Manifest(collection.name, progress.version, collection.spaces, items, files, dict(media))
    destination.write(MANIFEST, [encode_manifest(asdict(manifest), FORMAT)])
    return manifest


def read_manifest(destination: Destination) -> Manifest | None:
    """Return the manifest of a complete backup; None if there is none.

    Raises:
        BackupError: the manifest cannot be read.
    """
    if destination.size(MANIFEST) is None:
        return None
    fields = _read(destination, MANIFEST)
    try:
        spaces = tuple(map(_space, fields.pop("spaces")))
        files = tuple(File(**file) for file in fields.pop("files"))
        return Manifest(spaces=spaces, files=files, **fields)
    except (KeyError, TypeError, ValueError) as error:
        raise BackupError(f"{MANIFEST} is not as it was written: {error}") from error


def encode_items(items: Sequence[Item], spaces: Sequence[Space]) -> bytes:
    """Return items as a Parquet file."""
    media = [item.media or Media("") for item in items]
    columns: dict[str, Any] = {
        "id": pa.array([item.id for item in items], pa.string()),
        "content_type": pa.array([item.content_type for item in items], pa.string()),
        "text": pa.array([item.text for item in items], pa.large_string()),
        "metadata": pa.array(
            [json.dumps(item.metadata or {}, ensure_ascii=False) for item in items], pa.large_string()
        ),
        "media_sha256": pa.array([each.sha256 or None for each in media], pa.string()),
        "media_mime_type": pa.array([each.mime_type for each in media], pa.string()),
        "media_size_bytes": pa.array([each.size_bytes for each in media], pa.int64()),
        "media_width": pa.array([each.width for each in media], pa.int32()),
        "media_height": pa.array([each.height for each in media], pa.int32()),
        "revision": pa.array([item.revision for item in items], pa.int64()),
        "create_time": pa.array([item.create_time for item in items], pa.timestamp("us", "UTC")),
        "update_time": pa.array([item.update_time for item in items], pa.timestamp("us", "UTC")),
    }
    for space in spaces:
        vectors = [item.vectors.get(space.name) for item in items]
        columns[f"vector.{space.name}"] = pa.array(vectors, pa.list_(pa.float32(), space.dimensions))
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd", use_dictionary=False)
    return sink.getvalue()


def decode_items(content: bytes, spaces: Sequence[Space]) -> Iterator[Item]:
    """Yield the items of a Parquet file."""
    # An Arrow thread that releases Python's bytes while the process exits aborts the process.
    file = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)
    for row in file.read(use_threads=False).to_pylist():
        vectors = {space.name: row[f"vector.{space.name}"] for space in spaces}
        present = {name: np.array(vector, np.float32) for name, vector in vectors.items() if vector is not None}
        yield Item(
            id=row["id"],
            content_type=row["content_type"],
            text=row["text"],
            media=_media(row),
            metadata=json.loads(row["metadata"]),
            vectors=present,
            spaces=tuple(present),
            revision=row["revision"],
            create_time=row["create_time"],
            update_time=row["update_time"],
        )


def media_sizes(items: Sequence[Item]) -> dict[str, int]:
    """Return the sizes in bytes of the objects that items refer to, by hash."""
    return {item.media.sha256: item.media.size_bytes for item in items if item.media}


def read_file(destination: Destination, file: File) -> bytes:
    """Return the bytes of a file of items.

    Raises:
        BackupError: it is missing or damaged.
    """
    content = b"".join(_blocks(destination, file.path))
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise BackupError(f"{file.path} is not as it was written: its SHA-256 differs")
    return content


def media_blocks(destination: Destination, sha256: str) -> Iterator[bytes]:
    """Yield the bytes of an object.

    Raises:
        BackupError: it is missing, or, at the end, its hash is not its name.
    """
    digest = hashlib.sha256()
    for block in _blocks(destination, media_path(sha256)):
        digest.update(block)
        yield block
    if digest.hexdigest() != sha256:
        raise BackupError(f"{media_path(sha256)} is not as it was written: its SHA-256 differs")


def _blocks(destination: Destination, path: str) -> Iterator[bytes]:
    try:
        yield from destination.read(path)
    except FileNotFoundError as error:
        raise BackupError(f"{path} is missing from the backup") from error


def _space(fields: Mapping[str, Any]) -> Space:
    index = fields.get("index")
    return Space(
        **{**fields, "sources": tuple(fields["sources"]), "index": index_config(**index) if index is not None else None}
    )


def _media(row: Mapping[str, Any]) -> Media | None:
    if row["media_sha256"] is None:
        return None
    names = ("sha256", "mime_type", "size_bytes", "width", "height")
    return Media(**{name: row[f"media_{name}"] for name in names})


def _read(destination: Destination, path: str) -> dict[str, Any]:
    try:
        return decode_manifest(b"".join(destination.read(path)), READABLE)
    except ManifestError as error:
        raise BackupError(f"{path} {error}") from error
