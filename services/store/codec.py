"""Converts between the API's messages and the store's values."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from google.protobuf import timestamp_pb2

from medley.v1 import check_pb2, collection_pb2, filter_pb2, item_pb2, vector_pb2
from medley.v1 import store_service_pb2 as pb
from services.common import index_config_codec
from services.common.content import ContentType
from services.common.enum_codec import CONTENT_TYPES, METRICS, from_proto
from services.common.errors import ArgumentError, ServiceError
from services.common.filter_codec import from_message
from services.common.filters import Filter
from services.common.index_config import IndexConfig
from services.common.paging import encode_page_token
from services.common.rpc.statuses import to_status
from services.common.vectors import Matrix, Metric, to_bytes
from services.common.versions import Version
from services.store.core.collections import TablePage
from services.store.core.media_store import ExpectedUpload
from services.store.core.mutations import WrittenRow
from services.store.core.rows import Media, Row, RowField, Space
from services.store.core.table import ChangedRows, Table, VectorColumn
from services.store.core.tags import Tag
from services.store.core.validation import MediaInput, RowHistory, RowInput
from services.store.data.change_feed import Change
from services.store.data.media import Chunk, Upload
from services.store.data.reader import FieldMask, Item, Page
from services.store.data.writer import Merge, Replace, UpdateInput
from services.store.maintenance.integrity_check import (
    CheckedMedia,
    CheckedRows,
    CheckedTable,
    CheckedVectors,
    CheckOptions,
    CheckOutput,
    Finding,
    FindingKind,
)
from services.store.maintenance.purge import PurgeResult

_CONTENTS: Mapping[int, ContentType] = {number: content for content, number in CONTENT_TYPES.items()}
_FIELDS: Mapping[int, RowField] = {
    item_pb2.ITEM_FIELD_TEXT: RowField.TEXT,
    item_pb2.ITEM_FIELD_METADATA: RowField.METADATA,
    item_pb2.ITEM_FIELD_MEDIA: RowField.MEDIA,
    item_pb2.ITEM_FIELD_MEDIA_DATA: RowField.MEDIA,
    item_pb2.ITEM_FIELD_VECTORS: RowField.VECTORS,
}
_DEFAULT_MASK = FieldMask(frozenset({RowField.TEXT, RowField.METADATA, RowField.MEDIA}))


def spaces_value(message: collection_pb2.Collection) -> list[Space]:
    """Return the spaces of a collection to create.

    Raises:
        ArgumentError: a metric, source or storage is unknown.
    """
    return [_space_value(space) for space in message.spaces]


def index_value(message: pb.UpdateTableSpaceRequest) -> IndexConfig:
    """Return the index configuration of a request.

    Raises:
        ArgumentError: it is not set, or the storage is unknown.
    """
    if not message.HasField("index"):
        raise ArgumentError("index", "", "is not set")
    return index_config_codec.from_message(message.index)


def collection_message(table: Table) -> collection_pb2.Collection:
    """Return the collection of a table."""
    schema = table.schema
    return collection_pb2.Collection(
        name=schema.name,
        spaces=[_space_message(space) for space in schema.spaces],
        version=str(Version(schema.uid, table.version)),
        create_time=_timestamp(schema.created),
    )


def tables_message(page: TablePage) -> pb.ListTablesResponse:
    """Return a page of collections."""
    token = encode_page_token(page.last_name) if page.last_name else ""
    return pb.ListTablesResponse(collections=map(collection_message, page.tables), next_page_token=token)


def row_input(message: pb.Row) -> RowInput:
    """Return a row to write."""
    return RowInput(
        message.id,
        message.text if message.HasField("text") else None,
        _media_input(message.media) if message.HasField("media") else None,
        _CONTENTS.get(message.media_type),
        message.metadata_json,
        _encoded_vectors(message.vectors),
        message.expected_revision if message.HasField("expected_revision") else None,
        _history(message.history) if message.HasField("history") else None,
    )


def update_input(message: pb.UpdateRowRequest) -> UpdateInput:
    """Return an update.

    Raises:
        ArgumentError: the change of metadata is empty.
    """
    return UpdateInput(
        message.id,
        message.text if message.HasField("text") else None,
        _media_input(message.media) if message.HasField("media") else None,
        _CONTENTS.get(message.media_type),
        message.remove_media,
        _metadata_change(message.metadata) if message.HasField("metadata") else None,
        _encoded_vectors(message.vectors),
        message.expected_revision if message.HasField("expected_revision") else None,
    )


def selection(message: pb.DeleteRowsRequest) -> Sequence[str] | Filter:
    """Return the ids or the filter of the rows to delete.

    Raises:
        ArgumentError: neither is set.
        FilterError: the filter is invalid.
    """
    match message.WhichOneof("selection"):
        case "ids":
            return list(message.ids.ids)
        case "filter":
            return from_message(message.filter)
        case _:
            raise ArgumentError("selection", "", "must be ids or a filter")


def condition(message: pb.ListRowsRequest | pb.CountRowsRequest) -> Filter | None:
    """Return the filter of a request, None if it has none.

    Raises:
        FilterError: it is invalid.
    """
    message_filter: filter_pb2.Filter = message.filter
    return from_message(message_filter) if message.HasField("filter") else None


def field_mask(fields: Sequence[int]) -> FieldMask:
    """Return the fields to read; by default text, metadata and media.

    Raises:
        ArgumentError: a field is unknown.
    """
    for number in fields:
        if number not in _FIELDS:
            raise ArgumentError("fields", number, "is no field of an item")
    if not fields:
        return _DEFAULT_MASK
    return FieldMask(frozenset(_FIELDS[number] for number in fields), item_pb2.ITEM_FIELD_MEDIA_DATA in fields)


def result_message(outcome: WrittenRow | ServiceError, version: Version) -> item_pb2.ItemResult:
    """Return the outcome of writing a row."""
    if isinstance(outcome, ServiceError):
        return item_pb2.ItemResult(error=to_status(outcome))
    written = item_pb2.ItemWritten(id=outcome.id, revision=outcome.revision, version=str(version))
    return item_pb2.ItemResult(written=written)


def lookup_message(outcome: Item | ServiceError) -> item_pb2.ItemLookup:
    """Return the outcome of looking up an id."""
    if isinstance(outcome, ServiceError):
        return item_pb2.ItemLookup(error=to_status(outcome))
    return item_pb2.ItemLookup(item=item_message(outcome))


def written_message(row: Row) -> item_pb2.Item:
    """Return a written row, without media bytes and vectors."""
    return item_message(Item(row, _DEFAULT_MASK))


def item_message(item: Item) -> item_pb2.Item:
    """Return a row with the fields of its mask."""
    row, fields = item.row, item.mask.fields
    return item_pb2.Item(
        id=row.id,
        content_type=CONTENT_TYPES[row.content],
        text=row.text if RowField.TEXT in fields else None,
        media=media_message(row.media, item.data) if row.media and RowField.MEDIA in fields else None,
        metadata_json=row.metadata_json if RowField.METADATA in fields else None,
        vectors=_vector_messages(row.vectors) if RowField.VECTORS in fields else {},
        spaces=row.spaces,
        revision=row.revision,
        create_time=_timestamp(row.created),
        update_time=_timestamp(row.updated),
    )


def media_message(media: Media, data: bytes | None = None) -> item_pb2.Media:
    """Return a reference to an object, with its bytes if given."""
    return item_pb2.Media(
        sha256=media.sha256,
        mime_type=media.mime_type,
        size_bytes=media.size_bytes,
        width=media.width,
        height=media.height,
        data=data,
    )


def page_message(page: Page) -> pb.ListRowsResponse:
    """Return a page of items."""
    token = encode_page_token(page.last_id) if page.last_id else ""
    return pb.ListRowsResponse(items=map(item_message, page.items), next_page_token=token)


async def upload(parts: AsyncIterator[pb.PutMediaRequest]) -> Upload:
    """Return an upload once its header has arrived; its chunks are read on demand.

    Raises:
        ArgumentError: the first part is no header; or, while reading the chunks, a later part is no chunk.
    """
    first = await anext(parts, pb.PutMediaRequest())
    if first.WhichOneof("part") != "header":
        raise ArgumentError("part", first.WhichOneof("part") or "", "the first must be a header")
    header = first.header
    return Upload(ExpectedUpload(header.size_bytes, header.sha256), header.mime_type, _chunks(parts))


def chunk_message(chunk: Chunk) -> pb.ReadMediaResponse:
    """Return a part of an object."""
    return pb.ReadMediaResponse(chunk=chunk.content, size_bytes=chunk.object_bytes)


def version_value(token: str) -> Version | None:
    """Return the version of a token, None if it is empty.

    Raises:
        TokenError: the token is invalid.
    """
    return Version.parse(token) if token else None


def change_message(change: Change) -> pb.WatchChangesResponse:
    """Return a part of a change."""
    rows = change.rows
    return pb.WatchChangesResponse(
        reset=change.reset,
        rows_arrow_ipc=_arrow_ipc(rows) if rows and rows.ids else b"",
        deleted_ids=rows.deleted_ids if rows else (),
        version=str(change.version or ""),
        spaces=map(_space_message, change.spaces),
    )


def tag_message(tag: Tag) -> collection_pb2.Tag:
    """Return a tag."""
    return collection_pb2.Tag(name=tag.name, version=str(tag.version))


def purge_message(result: PurgeResult) -> pb.PurgeRowsResponse:
    """Return the result of a purge."""
    media = [pb.PurgedMedia(sha256=each.sha256, gone=not each.kept_by, kept_by=each.kept_by) for each in result.media]
    return pb.PurgeRowsResponse(version=str(result.version), tags=result.tags, media=media)


def check_options(request: pb.CheckTableRequest) -> CheckOptions:
    """Return the options of a check."""
    media = None if request.media.all else request.media.objects
    return CheckOptions(media, request.vector_sample, request.remove_damaged_media)


def check_message(output: CheckOutput) -> pb.CheckTableResponse:
    """Return a part of a check's output."""
    match output:
        case CheckedTable(version, rows):
            return pb.CheckTableResponse(table=pb.CheckedTable(version=str(version), rows=rows))
        case CheckedRows(ids, spaces):
            return pb.CheckTableResponse(rows=pb.CheckedRows(ids=ids, spaces=spaces))
        case CheckedVectors(row_id, vectors):
            return pb.CheckTableResponse(vectors=pb.CheckedVectors(id=row_id, vectors=_vector_messages(vectors)))
        case CheckedMedia(objects, objects_read, bytes_read):
            media = pb.CheckedMedia(objects=objects, objects_read=objects_read, bytes_read=bytes_read)
            return pb.CheckTableResponse(media=media)
        case Finding():
            return pb.CheckTableResponse(finding=finding_message(output))


def unreferenced_message(sha256: str, *, removed: bool) -> pb.CheckMediaResponse:
    """Return the finding for an object that no item refers to."""
    finding = Finding(
        FindingKind.MEDIA_UNREFERENCED, sha256=sha256, detail="no item refers to the object", repaired=removed
    )
    return pb.CheckMediaResponse(finding=finding_message(finding))


def finding_message(finding: Finding) -> check_pb2.Finding:
    """Return a finding."""
    return check_pb2.Finding(
        kind=check_pb2.FindingKind.Value(f"FINDING_KIND_{finding.kind.name}"),
        collection=finding.collection,
        id=finding.id,
        space=finding.space,
        sha256=finding.sha256,
        detail=finding.detail,
        repaired=finding.repaired,
    )


async def _chunks(parts: AsyncIterator[pb.PutMediaRequest]) -> AsyncIterator[bytes]:
    async for part in parts:
        if part.WhichOneof("part") != "chunk":
            raise ArgumentError("part", part.WhichOneof("part") or "", "all but the first must be chunks")
        yield part.chunk


def _arrow_ipc(rows: ChangedRows) -> bytes:
    columns = {"id": pa.array(rows.ids, pa.string()), "metadata": pa.array(rows.metadata_json, pa.string())}
    columns |= {f"vector.{name}": _vector_array(column) for name, column in rows.vectors.items()}
    batch = pa.record_batch(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def _vector_array(column: VectorColumn) -> pa.Array:
    dimensions = column.values.shape[1]
    values = pa.array(np.ascontiguousarray(column.values, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, dimensions, mask=pa.array(~column.present))


def _space_value(message: collection_pb2.Space) -> Space:
    return Space(
        message.name,
        message.dimensions,
        from_proto("metric", message.metric, METRICS) if message.metric else Metric.COSINE,
        message.model,
        tuple(from_proto("sources", number, CONTENT_TYPES) for number in message.sources),
        message.fingerprint,
        index_config_codec.from_message(message.index),
    )


def _space_message(space: Space) -> collection_pb2.Space:
    return collection_pb2.Space(
        name=space.name,
        model=space.model,
        dimensions=space.dimensions,
        metric=METRICS[space.metric],
        sources=[CONTENT_TYPES[content] for content in space.sources],
        fingerprint=space.fingerprint,
        index=index_config_codec.to_message(space.index),
    )


def _media_input(message: item_pb2.Media) -> MediaInput:
    return MediaInput(
        message.sha256,
        message.mime_type,
        message.size_bytes,
        message.width,
        message.height,
        message.data if message.HasField("data") else None,
    )


def _history(message: pb.RowHistory) -> RowHistory:
    created, updated = message.create_time.ToDatetime(UTC), message.update_time.ToDatetime(UTC)
    return RowHistory(message.revision, created, updated)


def _metadata_change(message: pb.MetadataUpdate) -> Replace | Merge:
    match message.WhichOneof("change"):
        case "replace_json":
            return Replace(message.replace_json)
        case "merge_json":
            return Merge(message.merge_json)
        case _:
            raise ArgumentError("metadata", "", "must say replace_json or merge_json")


def _encoded_vectors(messages: Mapping[str, vector_pb2.Vector]) -> dict[str, bytes]:
    return {name: vector.float32_le for name, vector in messages.items()}


def _vector_messages(vectors: Mapping[str, Matrix]) -> dict[str, vector_pb2.Vector]:
    return {name: vector_pb2.Vector(float32_le=to_bytes(vector)) for name, vector in vectors.items()}


def _timestamp(moment: datetime) -> timestamp_pb2.Timestamp:
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(moment)
    return message
