"""The store's maintenance calls over gRPC."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

from pyarrow import ipc

from medley.v1 import check_pb2, collection_pb2, item_pb2
from medley.v1 import store_service_pb2 as pb
from services.common.enum_codec import from_proto
from services.common.rpc.client import call, stream
from services.gateway.adapters.listing import list_all
from services.gateway.adapters.store import GrpcStore
from services.gateway.core.findings import (
    CheckedMedia,
    CheckedRows,
    CheckedTable,
    CheckedVectors,
    Finding,
    RowCheckOptions,
    RowCheckPart,
)
from services.gateway.core.store import ListedCollection, PurgedMedia, PurgeResult, RowChanges
from services.gateway.enums import FINDING_KINDS

PURGE_SECONDS = 3600.0


class GrpcMaintenanceStore(GrpcStore):
    """`GrpcStore` with the maintenance ports."""

    async def list_collections(self) -> list[ListedCollection[collection_pb2.Collection]]:
        found = await list_all("store", self._stub.ListTables, pb.ListTablesRequest, lambda page: page.collections)
        return [ListedCollection(message.name, message) for message in found]

    async def count_rows(self, collection: str) -> int:
        request = pb.CountRowsRequest(collection=collection)
        response: pb.CountRowsResponse = await call("store", self._stub.CountRows, request)
        return response.count

    async def check_rows(self, collection: str, options: RowCheckOptions) -> AsyncGenerator[RowCheckPart]:
        request = pb.CheckTableRequest(
            collection=collection,
            media=check_pb2.MediaSample(objects=options.media_objects, all=options.all_media),
            vector_sample=options.vector_sample,
            remove_damaged_media=options.remove_damaged_media,
        )
        async with aclosing(cast(Any, stream("store", self._stub.CheckTable, request))) as messages:
            async for message in messages:
                yield _check_part(message)

    async def check_media(self, *, remove: bool) -> AsyncGenerator[Finding]:
        request = pb.CheckMediaRequest(remove=remove)
        async with aclosing(cast(Any, stream("store", self._stub.CheckMedia, request))) as messages:
            async for message in messages:
                yield _finding(message.finding)

    async def watch_changes(self, collection: str, after: str) -> AsyncGenerator[RowChanges]:
        request = pb.WatchChangesRequest(collection=collection, after=after)
        async with aclosing(cast(Any, stream("store", self._stub.WatchChanges, request))) as messages:
            async for message in messages:
                yield RowChanges(_changed_ids(message), message.version, message.reset)

    async def get_media_hashes(self, collection: str, ids: Sequence[str]) -> dict[str, str]:
        request = pb.GetRowsRequest(collection=collection, ids=ids, fields=[item_pb2.ITEM_FIELD_MEDIA])
        response: pb.GetRowsResponse = await call("store", self._stub.GetRows, request)
        return {each.item.id: each.item.media.sha256 for each in response.lookups if each.HasField("item")}

    async def delete(self, collection: str, ids: Sequence[str]) -> str:
        request = pb.DeleteRowsRequest(collection=collection, ids=pb.ItemIds(ids=ids))
        response: pb.DeleteRowsResponse = await call("store", self._stub.DeleteRows, request)
        return response.version

    async def purge(self, collection: str, ids: Sequence[str], sha256s: Sequence[str]) -> PurgeResult:
        request = pb.PurgeRowsRequest(collection=collection, ids=ids, sha256s=sha256s)
        response: pb.PurgeRowsResponse = await call("store", self._stub.PurgeRows, request, seconds=PURGE_SECONDS)
        media = [PurgedMedia(each.sha256, each.gone, each.kept_by) for each in response.media]
        return PurgeResult(response.version, response.tags, media)

    async def restore(
        self, collection: str, rows: Sequence[pb.Row], fingerprints: Mapping[str, str]
    ) -> Sequence[item_pb2.ItemResult]:
        request = pb.UpsertRowsRequest(collection=collection, rows=rows, fingerprints=fingerprints)
        response: pb.UpsertRowsResponse = await call("store", self._stub.UpsertRows, request)
        return response.results


def _check_part(message: pb.CheckTableResponse) -> RowCheckPart:
    match message.WhichOneof("part"):
        case "table":
            return CheckedTable(message.table.version, message.table.rows)
        case "rows":
            return CheckedRows(message.rows.ids, message.rows.spaces)
        case "vectors":
            vectors = {space: vector.float32_le for space, vector in message.vectors.vectors.items()}
            return CheckedVectors(message.vectors.id, vectors)
        case "media":
            media = message.media
            return CheckedMedia(media.objects, media.objects_read, media.bytes_read)
        case _:
            return _finding(message.finding)


def _finding(message: check_pb2.Finding) -> Finding:
    return Finding(
        from_proto("kind", message.kind, FINDING_KINDS),
        message.collection,
        message.id,
        message.space,
        message.sha256,
        message.detail,
        message.repaired,
        message.not_repaired_because,
    )


def _changed_ids(message: pb.WatchChangesResponse) -> frozenset[str]:
    ids = frozenset(message.deleted_ids)
    if not message.rows_arrow_ipc:
        return ids
    return ids.union(ipc.open_stream(message.rows_arrow_ipc).read_all()["id"].to_pylist())
