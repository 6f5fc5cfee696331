"""Vectors in an Arrow IPC stream: one column of fixed_size_list<float32>, without nulls, not compressed."""

import struct
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from services.common.errors import ArgumentError
from services.common.vectors import Matrix
from services.search.core.errors import BatchDimensionError, BatchVectorError

_FIELD = "arrow_ipc"
_HEADER = 2  # of the table Message in Arrow's Message.fbs: the fields' numbers
_COMPRESSION = 3  # of the table RecordBatch


def from_arrow(stream: bytes, dimensions: int, offset: int) -> Matrix:
    """Return the vectors of `stream`, shape (n, dimensions); the first is at `offset` of its batch.

    Raises:
        ArgumentError: it is no such stream.
        BatchDimensionError: the vectors have another length.
        BatchVectorError: one is null, or has a component that is.
    """
    try:
        return np.concatenate([np.empty((0, dimensions), np.float32), *_parts(stream, dimensions, offset)])
    except (pa.ArrowException, OSError, ValueError, struct.error) as error:
        raise ArgumentError(_FIELD, f"{len(stream)} bytes", f"is no Arrow IPC stream: {error}") from error


def _parts(stream: bytes, dimensions: int, offset: int) -> Iterator[Matrix]:
    source = pa.BufferReader(stream)
    schema = pa.ipc.read_schema(source)
    _check_schema(schema, dimensions, offset)
    for message in _messages(source):
        _check_plain(message)
        batch = pa.ipc.read_record_batch(message, schema)
        batch.validate()
        column = batch.column(0)
        _check_no_nulls(column, dimensions, offset)
        yield column.flatten().to_numpy().reshape(-1, dimensions)
        offset += len(column)


def _messages(source: pa.BufferReader) -> Iterator[pa.Message]:
    while True:
        try:
            yield pa.ipc.read_message(source)
        except EOFError:
            return


def _check_schema(schema: pa.Schema, dimensions: int, offset: int) -> None:
    if len(schema) != 1:
        raise ArgumentError(_FIELD, f"{len(schema)} columns", "there must be one")
    kind = schema.field(0).type
    if not (pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float32()):
        raise ArgumentError(_FIELD, str(kind), f"must be fixed_size_list<float32>[{dimensions}]")
    if kind.list_size != dimensions:
        raise BatchDimensionError(offset, dimensions, kind.list_size)


def _check_plain(message: pa.Message) -> None:
    """Refuse compression: a few bytes could become more than the memory holds."""
    header = _field(message.metadata, _root(message.metadata), _HEADER)
    if message.type != "record batch" or header is None:
        raise ArgumentError(_FIELD, message.type, "there must be record batches alone")
    batch = header + _unsigned(message.metadata, header)
    if _field(message.metadata, batch, _COMPRESSION) is not None:
        raise ArgumentError(_FIELD, "compressed", "must not be compressed")


def _check_no_nulls(column: pa.FixedSizeListArray, dimensions: int, offset: int) -> None:
    if column.null_count:
        first = int(column.is_null().to_numpy(zero_copy_only=False).argmax())
        raise BatchVectorError(offset + first, "is null")
    components = column.flatten()
    if components.null_count:
        first = int(components.is_null().to_numpy(zero_copy_only=False).argmax())
        raise BatchVectorError(offset + first // dimensions, "has a component that is null")


def _root(flat: pa.Buffer) -> int:
    return _unsigned(flat, 0)


def _field(flat: pa.Buffer, table: int, number: int) -> int | None:
    """Return where a field of a FlatBuffers table lies; None where it is left out."""
    fields = table - struct.unpack_from("<i", flat, table)[0]
    entry = 4 + 2 * number
    if entry >= struct.unpack_from("<H", flat, fields)[0]:
        return None
    offset: int = struct.unpack_from("<H", flat, fields + entry)[0]
    return table + offset if offset else None


def _unsigned(flat: pa.Buffer, at: int) -> int:
    value: int = struct.unpack_from("<I", flat, at)[0]
    return value
