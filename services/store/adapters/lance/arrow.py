"""Rows as Arrow: the columns of a Lance table.

A removed row stays as one with `deleted` set and everything else null, so that its removal can be told to followers.
Lance allows no dots in a column's name, hence `vector_{space}`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from services.common.content import ContentType
from services.common.vectors import Matrix
from services.store.core.rows import CollectionSchema, Media, Part, Parts, Row, Space
from services.store.core.table import ChangedRows, VectorColumn

PRIMARY_KEY = {"lance-schema:unenforced-primary-key": "true"}
MOMENT = pa.timestamp("us", "UTC")
HEAD = ("id", "content_type", "spaces", "revision", "created", "updated")
MEDIA = ("media_sha256", "media_mime_type", "media_size_bytes", "media_width", "media_height")


def vector_column(space: Space) -> str:
    """Return the name of the column that holds the space's vectors."""
    return f"vector_{space.name}"


def schema_of(definition: CollectionSchema) -> pa.Schema:
    """Return the columns of a collection's table. `spaces` has bit i set for a row with a vector in space i."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False, metadata=PRIMARY_KEY),
            pa.field("content_type", pa.string()),
            pa.field("text", pa.large_string()),
            pa.field("media_sha256", pa.string()),
            pa.field("media_mime_type", pa.string()),
            pa.field("media_size_bytes", pa.int64()),
            pa.field("media_width", pa.int32()),
            pa.field("media_height", pa.int32()),
            pa.field("metadata", pa.large_string()),
            *(pa.field(vector_column(space), pa.list_(pa.float32(), space.dimensions)) for space in definition.spaces),
            pa.field("spaces", pa.int32()),
            pa.field("revision", pa.int64()),
            pa.field("created", MOMENT),
            pa.field("updated", MOMENT),
            pa.field("deleted", pa.bool_(), nullable=False),
        ]
    )


def columns_of(definition: CollectionSchema, parts: Parts) -> list[str]:
    """Return the columns that hold `parts`, and those that always come."""
    columns = list(HEAD)
    if Part.TEXT in parts:
        columns.append("text")
    if Part.METADATA in parts:
        columns.append("metadata")
    if Part.MEDIA in parts:
        columns.extend(MEDIA)
    if Part.VECTORS in parts:
        columns.extend(vector_column(space) for space in definition.spaces)
    return columns


def to_arrow(definition: CollectionSchema, rows: Sequence[Row], deletions: Sequence[str], now: datetime) -> pa.Table:
    """Return rows and, after them, removals at `now`, with all columns."""
    schema, removed = schema_of(definition), len(deletions)
    media = [row.media for row in rows]
    columns: dict[str, Any] = {
        "id": [row.id for row in rows] + list(deletions),
        "content_type": [row.content.value for row in rows] + [None] * removed,
        "text": [row.text for row in rows] + [None] * removed,
        "media_sha256": [each and each.sha256 for each in media] + [None] * removed,
        "media_mime_type": [each and each.mime_type for each in media] + [None] * removed,
        "media_size_bytes": [each and each.size_bytes for each in media] + [None] * removed,
        "media_width": [each and each.width for each in media] + [None] * removed,
        "media_height": [each and each.height for each in media] + [None] * removed,
        "metadata": [row.metadata_json for row in rows] + [None] * removed,
        "spaces": [_mask(definition, row) for row in rows] + [None] * removed,
        "revision": [row.revision for row in rows] + [None] * removed,
        "created": [row.created for row in rows] + [None] * removed,
        "updated": [row.updated for row in rows] + [now] * removed,
        "deleted": [False] * len(rows) + [True] * removed,
    }
    vectors = {vector_column(space): _vectors(space, rows, removed) for space in definition.spaces}
    return pa.table(
        [vectors.get(field.name) or pa.array(columns[field.name], field.type) for field in schema], schema=schema
    )


def from_arrow(definition: CollectionSchema, table: pa.Table) -> list[Row]:
    """Return the rows in `table`, which has the columns of some parts."""
    columns = {name: table.column(name).to_pylist() for name in table.column_names if not name.startswith("vector_")}
    absent = [None] * table.num_rows
    texts, metadata = columns.get("text", absent), columns.get("metadata", absent)
    media = _media(columns) if "media_sha256" in columns else absent
    vectors = _vectors_of_rows(definition, table)
    return [
        Row(
            columns["id"][i],
            ContentType(columns["content_type"][i]),
            texts[i],
            media[i],
            metadata[i] or "{}",
            vectors[i],
            _spaces(definition, columns["spaces"][i]),
            columns["revision"][i],
            columns["created"][i],
            columns["updated"][i],
        )
        for i in range(table.num_rows)
    ]


def from_batch(definition: CollectionSchema, batch: pa.RecordBatch) -> list[Row]:
    """Return the rows in `batch`, as `from_arrow` does."""
    return from_arrow(definition, pa.Table.from_batches([batch]))


def changed_rows(definition: CollectionSchema, batch: pa.RecordBatch) -> ChangedRows:
    """Return a batch of changes, with the columns `id`, `metadata`, `deleted` and the vectors'."""
    deleted = batch.column("deleted")
    written = batch.filter(pa.compute.invert(deleted))
    return ChangedRows(
        written.column("id").to_pylist(),
        written.column("metadata").to_pylist(),
        {space.name: _column(space, written.column(vector_column(space))) for space in definition.spaces},
        batch.column("id").filter(deleted).to_pylist(),
    )


def _mask(definition: CollectionSchema, row: Row) -> int:
    return sum(1 << i for i, space in enumerate(definition.spaces) if space.name in row.vectors)


def _spaces(definition: CollectionSchema, mask: int) -> tuple[str, ...]:
    return tuple(space.name for i, space in enumerate(definition.spaces) if mask >> i & 1)


def _vectors(space: Space, rows: Sequence[Row], removed: int) -> pa.Array:
    values = np.zeros((len(rows) + removed, space.dimensions), np.float32)
    absent = np.ones(len(values), np.bool_)
    for i, row in enumerate(rows):
        vector = row.vectors.get(space.name)
        if vector is not None:
            values[i], absent[i] = vector, False
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), space.dimensions, mask=pa.array(absent))


def _media(columns: dict[str, list[Any]]) -> list[Media | None]:
    rows = zip(*(columns[name] for name in MEDIA), strict=True)
    return [None if sha256 is None else Media(sha256, *rest) for sha256, *rest in rows]


def _vectors_of_rows(definition: CollectionSchema, table: pa.Table) -> list[dict[str, Matrix]]:
    vectors: list[dict[str, Matrix]] = [{} for _ in range(table.num_rows)]
    for space in definition.spaces:
        if vector_column(space) in table.column_names:
            column = _column(space, table.column(vector_column(space)).combine_chunks())
            for i in np.flatnonzero(column.present):
                vectors[i][space.name] = column.values[i]
    return vectors


def _column(space: Space, array: pa.FixedSizeListArray) -> VectorColumn:
    """Return the vectors; under a null, `values` has no meaning to Arrow: zeros are put there."""
    flat = array.values.slice(array.offset * space.dimensions, len(array) * space.dimensions)
    values = flat.fill_null(0).to_numpy(zero_copy_only=False).reshape(len(array), space.dimensions)
    present = np.asarray(array.is_valid().to_numpy(zero_copy_only=False), np.bool_)
    if not present.all():
        values = np.where(present[:, None], values, np.float32(0))
    return VectorColumn(values, present)
