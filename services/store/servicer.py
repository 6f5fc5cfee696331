"""StoreService over gRPC: messages in, domain call, messages out."""

from collections.abc import AsyncIterator

from medley.v1 import store_service_pb2 as pb
from medley.v1 import store_service_pb2_grpc as pb_grpc
from services.common.paging import decode_page_token, validate_page_size
from services.common.rpc.interceptors import Context
from services.store import codec
from services.store.core.collections import Collections
from services.store.core.tags import Tags
from services.store.data.change_feed import ChangeFeed
from services.store.data.media import MediaService
from services.store.data.reader import Reader
from services.store.data.writer import Writer
from services.store.maintenance.garbage_collection import GarbageCollector
from services.store.maintenance.integrity_check import IntegrityCheck
from services.store.maintenance.purge import Purge


class StoreServicer(pb_grpc.StoreServiceServicer):
    """The handlers of StoreService."""

    def __init__(
        self,
        collections: Collections,
        writer: Writer,
        reader: Reader,
        media: MediaService,
        change_feed: ChangeFeed,
        *,
        integrity_check: IntegrityCheck,
        garbage_collector: GarbageCollector,
        tags: Tags,
        purge: Purge,
    ) -> None:
        self._collections = collections
        self._writer = writer
        self._reader = reader
        self._media = media
        self._change_feed = change_feed
        self._integrity_check = integrity_check
        self._garbage_collector = garbage_collector
        self._tags = tags
        self._purge = purge

    def end_watches(self) -> None:
        """End the change streams, which would otherwise keep the server from draining."""
        self._change_feed.close()

    async def CreateTable(self, request: pb.CreateTableRequest, context: Context) -> pb.CreateTableResponse:
        table = await self._collections.create(request.collection.name, codec.spaces_value(request.collection))
        return pb.CreateTableResponse(collection=codec.collection_message(table))

    async def GetTable(self, request: pb.GetTableRequest, context: Context) -> pb.GetTableResponse:
        table = await self._collections.table(request.name)
        return pb.GetTableResponse(collection=codec.collection_message(table))

    async def ListTables(self, request: pb.ListTablesRequest, context: Context) -> pb.ListTablesResponse:
        page = await self._collections.page(
            decode_page_token(request.page_token), validate_page_size(request.page_size)
        )
        return codec.tables_message(page)

    async def UpdateTableSpace(
        self, request: pb.UpdateTableSpaceRequest, context: Context
    ) -> pb.UpdateTableSpaceResponse:
        table = await self._collections.configure(request.collection, request.space, codec.index_value(request))
        return pb.UpdateTableSpaceResponse(collection=codec.collection_message(table))

    async def DropTable(self, request: pb.DropTableRequest, context: Context) -> pb.DropTableResponse:
        await self._collections.drop(request.name)
        return pb.DropTableResponse()

    async def UpsertRows(self, request: pb.UpsertRowsRequest, context: Context) -> pb.UpsertRowsResponse:
        rows = [codec.row_input(row) for row in request.rows]
        outcomes, version = await self._writer.upsert(request.collection, rows, request.fingerprints)
        return pb.UpsertRowsResponse(results=[codec.result_message(outcome, version) for outcome in outcomes])

    async def UpdateRow(self, request: pb.UpdateRowRequest, context: Context) -> pb.UpdateRowResponse:
        update = codec.update_input(request)
        row, version = await self._writer.update(request.collection, update, request.fingerprints)
        return pb.UpdateRowResponse(item=codec.written_message(row), version=str(version))

    async def GetRows(self, request: pb.GetRowsRequest, context: Context) -> pb.GetRowsResponse:
        outcomes = await self._reader.get(
            request.collection, request.ids, codec.field_mask(request.fields), request.as_of
        )
        return pb.GetRowsResponse(lookups=[codec.lookup_message(outcome) for outcome in outcomes])

    async def ListRows(self, request: pb.ListRowsRequest, context: Context) -> pb.ListRowsResponse:
        page = await self._reader.page(
            request.collection,
            codec.condition(request),
            after=decode_page_token(request.page_token),
            size=validate_page_size(request.page_size),
            mask=codec.field_mask(request.fields),
            as_of=request.as_of,
        )
        return codec.page_message(page)

    async def CountRows(self, request: pb.CountRowsRequest, context: Context) -> pb.CountRowsResponse:
        count = await self._reader.count(request.collection, codec.condition(request), request.as_of)
        return pb.CountRowsResponse(count=count)

    async def DeleteRows(self, request: pb.DeleteRowsRequest, context: Context) -> pb.DeleteRowsResponse:
        deleted, version = await self._writer.delete(request.collection, codec.selection(request))
        return pb.DeleteRowsResponse(deleted=deleted, version=str(version))

    async def PutMedia(
        self, request_iterator: AsyncIterator[pb.PutMediaRequest], context: Context
    ) -> pb.PutMediaResponse:
        media = await self._media.put(await codec.upload(request_iterator))
        return pb.PutMediaResponse(media=codec.media_message(media))

    async def ReadMedia(self, request: pb.ReadMediaRequest, context: Context) -> AsyncIterator[pb.ReadMediaResponse]:
        async for chunk in self._media.read(request.sha256, request.range.offset, request.range.length):
            yield codec.chunk_message(chunk)

    async def PresignMedia(self, request: pb.PresignMediaRequest, context: Context) -> pb.PresignMediaResponse:
        url = await self._media.url(request.sha256, request.expires_seconds, request.mime_type)
        return pb.PresignMediaResponse(url=url)

    async def WatchChanges(
        self, request: pb.WatchChangesRequest, context: Context
    ) -> AsyncIterator[pb.WatchChangesResponse]:
        async for change in self._change_feed.watch(request.collection, codec.version_value(request.after)):
            yield codec.change_message(change)

    async def CheckTable(self, request: pb.CheckTableRequest, context: Context) -> AsyncIterator[pb.CheckTableResponse]:
        async for output in self._integrity_check.check(request.collection, codec.check_options(request)):
            yield codec.check_message(output)

    async def CheckMedia(self, request: pb.CheckMediaRequest, context: Context) -> AsyncIterator[pb.CheckMediaResponse]:
        async for sha256 in self._garbage_collector.find_unreferenced(remove=request.remove):
            yield codec.unreferenced_message(sha256, removed=request.remove)

    async def TagTable(self, request: pb.TagTableRequest, context: Context) -> pb.TagTableResponse:
        tag = await self._tags.create(request.collection, request.tag, request.version)
        return pb.TagTableResponse(tag=codec.tag_message(tag))

    async def ListTableTags(self, request: pb.ListTableTagsRequest, context: Context) -> pb.ListTableTagsResponse:
        tags = await self._tags.list_all(request.collection)
        return pb.ListTableTagsResponse(tags=map(codec.tag_message, tags))

    async def DeleteTableTag(self, request: pb.DeleteTableTagRequest, context: Context) -> pb.DeleteTableTagResponse:
        await self._tags.delete(request.collection, request.tag)
        return pb.DeleteTableTagResponse()

    async def PurgeRows(self, request: pb.PurgeRowsRequest, context: Context) -> pb.PurgeRowsResponse:
        return codec.purge_message(await self._purge.purge(request.collection, request.ids, request.sha256s))
