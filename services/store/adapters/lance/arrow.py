"""Rows as Arrow: the columns of a Lance table.

A deleted row stays with `deleted` set and all else null but `id` and `updated`, so that the change feed can report it.
Lance allows no dots in a column's name, hence `vector_{space}`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from services.common.content import ContentType
from services.common.vectors import Matrix
from services.store.core.rows import CollectionSchema, Media, Row, RowField, RowFields, Space
from services.store.core.table import ChangedRows, VectorColumn

PRIMARY_KEY = {"lance-schema:unenforced-primary-key": "true"}
TIMESTAMP = pa.timestamp("us", "UTC")
FIXED_COLUMNS = ("id", "content_type", "spaces", "revision", "created", "updated")
MEDIA_COLUMNS = ("media_sha256", "media_mime_type", "media_size_bytes", "media_width", "media_height")


def vector_column(space: Space) -> str:
    """Return the name of the column that holds the space's vectors."""
    return f"vector_{space.name}"


def columns_for(schema: CollectionSchema) -> pa.Schema:
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
            *(pa.field(vector_column(space), pa.list_(pa.float32(), space.dimensions)) for space in schema.spaces),
            pa.field("spaces", pa.int32()),
            pa.field("revision", pa.int64()),
            pa.field("created", TIMESTAMP),
            pa.field("updated", TIMESTAMP),
            pa.field("deleted", pa.bool_(), nullable=False),
        ]
    )


def columns_of(schema: CollectionSchema, fields: RowFields) -> list[str]:
    """Return the columns that hold `fields`, and those read in any case."""
    columns = list(FIXED_COLUMNS)
    if RowField.TEXT in fields:
        columns.append("text")
    if RowField.METADATA in fields:
        columns.append("metadata")
    if RowField.MEDIA in fields:
        columns.extend(MEDIA_COLUMNS)
    if RowField.VECTORS in fields:
        columns.extend(vector_column(space) for space in schema.spaces)
    return columns


def to_arrow(schema: CollectionSchema, rows: Sequence[Row], deletions: Sequence[str], now: datetime) -> pa.Table:
    """Return a table of `rows` and, after them, of ids deleted at `now`, with all columns."""
    arrow_schema, deleted = columns_for(schema), len(deletions)
    media = [row.media for row in rows]
    columns: dict[str, Any] = {
        "id": [row.id for row in rows] + list(deletions),
        "content_type": [row.content.value for row in rows] + [None] * deleted,
        "text": [row.text for row in rows] + [None] * deleted,
        "media_sha256": [each and each.sha256 for each in media] + [None] * deleted,
        "media_mime_type": [each and each.mime_type for each in media] + [None] * deleted,
        "media_size_bytes": [each and each.size_bytes for each in media] + [None] * deleted,
        "media_width": [each and each.width for each in media] + [None] * deleted,
        "media_height": [each and each.height for each in media] + [None] * deleted,
        "metadata": [row.metadata_json for row in rows] + [None] * deleted,
        "spaces": [_mask(schema, row) for row in rows] + [None] * deleted,
        "revision": [row.revision for row in rows] + [None] * deleted,
        "created": [row.created for row in rows] + [None] * deleted,
        "updated": [row.updated for row in rows] + [now] * deleted,
        "deleted": [False] * len(rows) + [True] * deleted,
    }
    vectors = {vector_column(space): _vectors(space, rows, deleted) for space in schema.spaces}
    return pa.table(
        [vectors.get(field.name) or pa.array(columns[field.name], field.type) for field in arrow_schema],
        schema=arrow_schema,
    )


def from_arrow(schema: CollectionSchema, table: pa.Table) -> list[Row]:
    """Return the rows in `table`; fields without a column are at their defaults."""
    columns = {name: table.column(name).to_pylist() for name in table.column_names if not name.startswith("vector_")}
    nulls = [None] * table.num_rows
    texts, metadata = columns.get("text", nulls), columns.get("metadata", nulls)
    media = _media(columns) if "media_sha256" in columns else nulls
    vectors = _vectors_of_rows(schema, table)
    return [
        Row(
            columns["id"][i],
            ContentType(columns["content_type"][i]),
            texts[i],
            media[i],
            metadata[i] or "{}",
            vectors[i],
            _spaces(schema, columns["spaces"][i]),
            columns["revision"][i],
            columns["created"][i],
            columns["updated"][i],
        )
        for i in range(table.num_rows)
    ]


def from_batch(schema: CollectionSchema, batch: pa.RecordBatch) -> list[Row]:
    """Return the rows in `batch`, as `from_arrow` does."""
    return from_arrow(schema, pa.Table.from_batches([batch]))


def changed_rows(schema: CollectionSchema, batch: pa.RecordBatch) -> ChangedRows:
    """Return the changes in `batch`, which has the columns `id`, `metadata`, `deleted` and the vectors."""
    deleted = batch.column("deleted")
    written = batch.filter(pa.compute.invert(deleted))
    return ChangedRows(
        written.column("id").to_pylist(),
        written.column("metadata").to_pylist(),
        {space.name: _column(space, written.column(vector_column(space))) for space in schema.spaces},
        batch.column("id").filter(deleted).to_pylist(),
    )


def _mask(schema: CollectionSchema, row: Row) -> int:
    return sum(1 << i for i, space in enumerate(schema.spaces) if space.name in row.vectors)


def _spaces(schema: CollectionSchema, mask: int) -> tuple[str, ...]:
    return tuple(space.name for i, space in enumerate(schema.spaces) if mask >> i & 1)


def _vectors(space: Space, rows: Sequence[Row], deleted: int) -> pa.Array:
    values = np.zeros((len(rows) + deleted, space.dimensions), np.float32)
    absent = np.ones(len(values), np.bool_)
    for i, row in enumerate(rows):
        vector = row.vectors.get(space.name)
        if vector is not None:
            values[i], absent[i] = vector, False
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), space.dimensions, mask=pa.array(absent))


def _media(columns: dict[str, list[Any]]) -> list[Media | None]:
    rows = zip(*(columns[name] for name in MEDIA_COLUMNS), strict=True)
    return [None if sha256 is None else Media(sha256, *rest) for sha256, *rest in rows]


def _vectors_of_rows(schema: CollectionSchema, table: pa.Table) -> list[dict[str, Matrix]]:
    vectors: list[dict[str, Matrix]] = [{} for _ in range(table.num_rows)]
    for space in schema.spaces:
        if vector_column(space) in table.column_names:
            column = _column(space, table.column(vector_column(space)).combine_chunks())
            for i in np.flatnonzero(column.present):
                vectors[i][space.name] = column.values[i]
    return vectors


def _column(space: Space, array: pa.FixedSizeListArray) -> VectorColumn:
    """Return the vectors, with zeros for nulls: Arrow does not define the values under a null."""
    flat = array.values.slice(array.offset * space.dimensions, len(array) * space.dimensions)
    values = flat.fill_null(0).to_numpy(zero_copy_only=False).reshape(len(array), space.dimensions)
    present = np.asarray(array.is_valid().to_numpy(zero_copy_only=False), np.bool_)
    if not present.all():
        values = np.where(present[:, None], values, np.float32(0))
    return VectorColumn(values, present)
