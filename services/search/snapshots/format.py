"""The files of a snapshot: rows as compressed Arrow, vectors as they lie in memory, little-endian."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow

from services.common.vectors import Matrix
from services.search.core.portable_index import CollectionExport, SpaceExport
from services.search.core.vector_index import Numbers
from services.search.snapshots.manifest import UnusableSnapshotError

PART_BYTES = 16 * 2**20
MAX_ROWS = 2**16
_STEP = 128
_NUMBER, _FLOAT = np.dtype("<i4"), np.dtype("<f4")

Rows = tuple[Sequence[str], Sequence[str]]


def row_chunks(content: CollectionExport) -> Iterator[Rows]:
    """Yield the ids and metadata of all items, so that no portion is much over `PART_BYTES`."""
    ids: list[str] = []
    metadata: list[str] = []
    size = 0
    for begin in range(0, content.items, _STEP):
        more_ids, more_metadata = content.rows(begin, min(begin + _STEP, content.items))
        ids += more_ids
        metadata += more_metadata
        size += sum(map(len, more_ids)) + sum(map(len, more_metadata))
        if size >= PART_BYTES or len(ids) >= MAX_ROWS:
            yield ids, metadata
            ids, metadata, size = [], [], 0
    if ids:
        yield ids, metadata


def encode_rows(rows: Rows) -> bytes:
    """Return ids and metadata as an Arrow IPC stream."""
    ids, metadata = rows
    batch = pyarrow.record_batch({"id": pyarrow.array(ids, "string"), "metadata": pyarrow.array(metadata, "string")})
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, batch.schema, options=pyarrow.ipc.IpcWriteOptions(compression="lz4")) as stream:
        stream.write_batch(batch)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def decode_rows(content: bytes, count: int) -> Rows:
    """Return what `encode_rows` wrote.

    Raises:
        UnusableError: it is none, or not of `count` items.
    """
    try:
        table = pyarrow.ipc.open_stream(content).read_all()
        rows = table["id"].to_pylist(), table["metadata"].to_pylist()
    except (pyarrow.ArrowException, KeyError) as error:
        raise UnusableSnapshotError(f"rows cannot be read: {error}") from error
    if len(rows[0]) != count:
        raise UnusableSnapshotError(f"{len(rows[0])} rows where {count} are said to be")
    return rows


def slot_chunks(space: SpaceExport) -> Iterator[slice]:
    """Yield which of the vectors of `space` go into one file."""
    size = max(1, PART_BYTES // (_FLOAT.itemsize * space.space.dimensions + 2 * _NUMBER.itemsize))
    return (slice(begin, min(begin + size, len(space.slots))) for begin in range(0, len(space.slots), size))


def encode_vectors(space: SpaceExport, chunk: slice) -> bytes:
    """Return the items' numbers, the slots, and the vectors."""
    slots = space.slots[chunk]
    vectors = np.ascontiguousarray(space.vectors(slots), _FLOAT)
    columns = space.items[chunk].astype(_NUMBER), slots.astype(_NUMBER), vectors
    return b"".join(column.data.cast("B") if column.size else b"" for column in columns)


def encode_slots(slots: Numbers) -> bytes:
    """Return slots as they lie in memory."""
    return slots.astype(_NUMBER).tobytes()


def decode_slots(content: bytes, count: int) -> Numbers:
    """Return what `encode_slots` wrote.

    Raises:
        UnusableError: it is not of `count` slots.
    """
    if len(content) != count * _NUMBER.itemsize:
        raise UnusableSnapshotError(f"{len(content)} bytes are not {count} slots")
    return np.frombuffer(content, _NUMBER).astype(np.int64)


def decode_vectors(content: bytes, count: int, dimensions: int) -> tuple[Numbers, Numbers, Matrix]:
    """Return what `encode_vectors` wrote.

    Raises:
        UnusableError: it is not of `count` vectors of `dimensions`.
    """
    tables = 2 * count * _NUMBER.itemsize
    if len(content) != tables + count * dimensions * _FLOAT.itemsize:
        raise UnusableSnapshotError(f"{len(content)} bytes are not {count} vectors of {dimensions} dimensions")
    items, slots = np.frombuffer(content, _NUMBER, 2 * count).reshape(2, count).astype(np.int64)
    vectors: Matrix = np.frombuffer(content, _FLOAT, offset=tables).reshape(count, dimensions)
    return items, slots, vectors
