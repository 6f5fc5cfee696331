"""The store over gRPC."""

from collections.abc import Mapping, Sequence

from medley.v1 import collection_pb2, item_pb2, vector_pb2
from medley.v1 import store_service_pb2 as pb
from services.common import index_config_codec
from services.common.enum_codec import CONTENT_TYPES, METRICS, from_proto
from services.common.errors import MessageTooLargeError, NotFoundError, ServiceError
from services.common.index_config import IndexConfig
from services.common.rpc.client import call, stream
from services.common.vectors import Matrix, from_bytes, to_bytes
from services.gateway.adapters.statuses import to_error
from services.gateway.core.items import Collection, InlineMedia, ItemField, Space, StoredMedia
from services.gateway.core.store import (
    ItemState,
    MergeMetadata,
    MetadataChange,
    ReplaceMetadata,
    Row,
    RowChange,
    RowMedia,
    WrittenRow,
)
from services.gateway.enums import FIELDS
from services.gateway.peers import StoreStub

READ_SECONDS = 120.0


class GrpcStore:
    """The ports of reading and writing over one stub; items and collections are the API's messages."""

    def __init__(self, stub: StoreStub) -> None:
        self._stub = stub

    async def create_collection(
        self, collection: Collection, indexes: Mapping[str, IndexConfig]
    ) -> collection_pb2.Collection:
        spaces = [_to_space(space, indexes.get(space.name, IndexConfig())) for space in collection.spaces]
        message = collection_pb2.Collection(name=collection.name, spaces=spaces)
        request = pb.CreateTableRequest(collection=message)
        response: pb.CreateTableResponse = await call("store", self._stub.CreateTable, request)
        return response.collection

    async def get_collection(self, name: str) -> Collection:
        response: pb.GetTableResponse = await call("store", self._stub.GetTable, pb.GetTableRequest(name=name))
        return Collection(name, tuple(map(_from_space, response.collection.spaces)))

    async def get_items(
        self, collection: str, ids: Sequence[str], fields: Sequence[ItemField]
    ) -> list[item_pb2.Item | None]:
        lookups = await self._lookups(collection, ids, fields)
        return [_item_or_none(lookup) for lookup in lookups]

    async def get_vectors(self, collection: str, item_id: str) -> dict[str, Matrix]:
        item = await self._item(collection, item_id, [ItemField.VECTORS])
        return {space: from_bytes(vector.float32_le) for space, vector in item.vectors.items()}

    async def get_state(self, collection: str, item_id: str) -> ItemState:
        item = await self._item(collection, item_id, [ItemField.TEXT, ItemField.MEDIA])
        text = item.text if item.HasField("text") else None
        return ItemState(text, item.media.sha256, item.revision, frozenset(item.spaces))

    async def upsert(
        self, collection: str, rows: Sequence[Row], fingerprints: Mapping[str, str]
    ) -> list[WrittenRow | ServiceError]:
        request = pb.UpsertRowsRequest(collection=collection, rows=map(_row, rows), fingerprints=fingerprints)
        response: pb.UpsertRowsResponse = await call("store", self._stub.UpsertRows, request)
        return [_written(result) for result in response.results]

    async def update(
        self, collection: str, change: RowChange, fingerprints: Mapping[str, str]
    ) -> tuple[item_pb2.Item, str]:
        request = pb.UpdateRowRequest(
            collection=collection,
            id=change.id,
            text=change.text,
            media=_media(change.media) if change.media else None,
            media_type=_media_type(change.media),
            remove_media=change.remove_media,
            metadata=_metadata(change.metadata) if change.metadata else None,
            vectors=_vectors(change.vectors),
            fingerprints=fingerprints,
            expected_revision=change.expected_revision,
        )
        response: pb.UpdateRowResponse = await call("store", self._stub.UpdateRow, request)
        return response.item, response.version

    async def read_media(self, sha256: str, max_bytes: int) -> bytes:
        chunks: list[bytes] = []
        request = pb.ReadMediaRequest(sha256=sha256)
        async for message in stream("store", self._stub.ReadMedia, request, seconds=READ_SECONDS):
            if message.size_bytes > max_bytes:
                size, limit = str(message.size_bytes), str(max_bytes)
                raise MessageTooLargeError(
                    f"media have {size} bytes, at most {limit} are allowed", size=size, limit=limit
                )
            chunks.append(message.chunk)
        return b"".join(chunks)

    async def _item(self, collection: str, item_id: str, fields: Sequence[ItemField]) -> item_pb2.Item:
        (lookup,) = await self._lookups(collection, [item_id], fields)
        if lookup.HasField("error"):
            raise to_error(lookup.error)
        return lookup.item

    async def _lookups(
        self, collection: str, ids: Sequence[str], fields: Sequence[ItemField]
    ) -> Sequence[item_pb2.ItemLookup]:
        numbers = [FIELDS[field] for field in fields]
        request = pb.GetRowsRequest(collection=collection, ids=ids, fields=numbers)
        response: pb.GetRowsResponse = await call("store", self._stub.GetRows, request)
        return response.lookups


def _item_or_none(lookup: item_pb2.ItemLookup) -> item_pb2.Item | None:
    if lookup.HasField("item"):
        return lookup.item
    error = to_error(lookup.error)
    if isinstance(error, NotFoundError):
        return None
    raise error


def _to_space(space: Space, index: IndexConfig) -> collection_pb2.Space:
    return collection_pb2.Space(
        name=space.name,
        model=space.model,
        dimensions=space.dimensions,
        metric=METRICS[space.metric],
        sources=[CONTENT_TYPES[source] for source in space.sources],
        fingerprint=space.fingerprint,
        index=index_config_codec.to_message(index),
    )


def _from_space(message: collection_pb2.Space) -> Space:
    return Space(
        message.name,
        message.model,
        message.dimensions,
        from_proto("metric", message.metric, METRICS),
        tuple(from_proto("sources", number, CONTENT_TYPES) for number in message.sources),
        message.fingerprint,
    )


def _row(row: Row) -> pb.Row:
    return pb.Row(
        id=row.id,
        text=row.text,
        media=_media(row.media) if row.media else None,
        media_type=_media_type(row.media),
        metadata_json=row.metadata_json,
        vectors=_vectors(row.vectors),
    )


def _media(media: RowMedia) -> item_pb2.Media:
    facts = media.facts
    message = item_pb2.Media(
        sha256=facts.sha256,
        mime_type=facts.mime_type,
        size_bytes=facts.size_bytes,
        width=facts.width,
        height=facts.height,
    )
    match media.source:
        case InlineMedia(data):
            message.data = data
        case StoredMedia(sha256):
            message.sha256 = sha256
    return message


def _media_type(media: RowMedia | None) -> collection_pb2.ContentType.ValueType:
    return CONTENT_TYPES[media.facts.content_type] if media else collection_pb2.CONTENT_TYPE_UNSPECIFIED


def _vectors(vectors: Mapping[str, Matrix]) -> dict[str, vector_pb2.Vector]:
    return {space: vector_pb2.Vector(float32_le=to_bytes(vector)) for space, vector in vectors.items()}


def _metadata(change: MetadataChange) -> pb.MetadataUpdate:
    match change:
        case ReplaceMetadata(json):
            return pb.MetadataUpdate(replace_json=json)
        case MergeMetadata(json):
            return pb.MetadataUpdate(merge_json=json)


def _written(result: item_pb2.ItemResult) -> WrittenRow | ServiceError:
    if result.HasField("error"):
        return to_error(result.error)
    return WrittenRow(result.written.id, result.written.revision, result.written.version)
