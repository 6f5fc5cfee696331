"""Calls that the store answers as they are: the same request to it, its response to the caller; nothing is decided."""

from collections.abc import AsyncIterator

from medley.v1 import filter_pb2
from medley.v1 import gateway_service_pb2 as pb
from medley.v1 import store_service_pb2 as store_pb
from services.common.filter_codec import from_where, to_message
from services.common.rpc.client import STREAM_SECONDS, call, stream
from services.gateway.peers import StoreStub


class StoreProxy:
    """Hands calls on to the store."""

    def __init__(self, stub: StoreStub) -> None:
        self._stub = stub

    async def get_collection(self, request: pb.GetCollectionRequest) -> pb.GetCollectionResponse:
        """Answer GetCollection."""
        answer = await call("store", self._stub.GetTable, store_pb.GetTableRequest(name=request.name))
        return pb.GetCollectionResponse(collection=answer.collection)

    async def list_collections(self, request: pb.ListCollectionsRequest) -> pb.ListCollectionsResponse:
        """Answer ListCollections."""
        asked = store_pb.ListTablesRequest(page_size=request.page_size, page_token=request.page_token)
        answer = await call("store", self._stub.ListTables, asked)
        return pb.ListCollectionsResponse(collections=answer.collections, next_page_token=answer.next_page_token)

    async def update_space(self, request: pb.UpdateSpaceRequest) -> pb.UpdateSpaceResponse:
        """Answer UpdateSpace."""
        asked = store_pb.UpdateTableSpaceRequest(
            collection=request.collection,
            space=request.space,
            index=request.index if request.HasField("index") else None,
        )
        answer = await call("store", self._stub.UpdateTableSpace, asked)
        return pb.UpdateSpaceResponse(collection=answer.collection)

    async def drop_collection(self, request: pb.DropCollectionRequest) -> pb.DropCollectionResponse:
        """Answer DropCollection."""
        await call("store", self._stub.DropTable, store_pb.DropTableRequest(name=request.name))
        return pb.DropCollectionResponse()

    async def get_items(self, request: pb.GetItemsRequest) -> pb.GetItemsResponse:
        """Answer GetItems."""
        asked = store_pb.GetRowsRequest(
            collection=request.collection, ids=request.ids, fields=request.fields, as_of=request.as_of
        )
        answer = await call("store", self._stub.GetRows, asked)
        return pb.GetItemsResponse(lookups=answer.lookups)

    async def list_items(self, request: pb.ListItemsRequest) -> pb.ListItemsResponse:
        """Answer ListItems."""
        asked = store_pb.ListRowsRequest(
            collection=request.collection,
            filter=_filter(request.where),
            page_size=request.page_size,
            page_token=request.page_token,
            fields=request.fields,
            as_of=request.as_of,
        )
        answer = await call("store", self._stub.ListRows, asked)
        return pb.ListItemsResponse(items=answer.items, next_page_token=answer.next_page_token)

    async def count_items(self, request: pb.CountItemsRequest) -> pb.CountItemsResponse:
        """Answer CountItems."""
        condition = _filter(request.where)
        asked = store_pb.CountRowsRequest(collection=request.collection, filter=condition, as_of=request.as_of)
        answer = await call("store", self._stub.CountRows, asked)
        return pb.CountItemsResponse(count=answer.count)

    async def delete_items(self, request: pb.DeleteItemsRequest) -> pb.DeleteItemsResponse:
        """Answer DeleteItems; a filter that spells none selects nothing, and the store refuses that."""
        asked = store_pb.DeleteRowsRequest(
            collection=request.collection,
            ids=request.ids if request.HasField("ids") else None,
            filter=_filter(request.where),
        )
        answer = await call("store", self._stub.DeleteRows, asked)
        return pb.DeleteItemsResponse(deleted=answer.deleted, version=answer.version)

    async def tag(self, request: pb.TagCollectionRequest) -> pb.TagCollectionResponse:
        """Answer TagCollection."""
        asked = store_pb.TagTableRequest(collection=request.collection, tag=request.tag, version=request.version)
        answer = await call("store", self._stub.TagTable, asked)
        return pb.TagCollectionResponse(tag=answer.tag)

    async def list_tags(self, request: pb.ListTagsRequest) -> pb.ListTagsResponse:
        """Answer ListTags."""
        asked = store_pb.ListTableTagsRequest(collection=request.collection)
        answer = await call("store", self._stub.ListTableTags, asked)
        return pb.ListTagsResponse(tags=answer.tags)

    async def delete_tag(self, request: pb.DeleteTagRequest) -> pb.DeleteTagResponse:
        """Answer DeleteTag."""
        asked = store_pb.DeleteTableTagRequest(collection=request.collection, tag=request.tag)
        await call("store", self._stub.DeleteTableTag, asked)
        return pb.DeleteTagResponse()

    async def upload(self, requests: AsyncIterator[pb.UploadMediaRequest]) -> pb.UploadMediaResponse:
        """Answer UploadMedia."""
        answer = await call("store", self._stub.PutMedia, _puts(requests), seconds=STREAM_SECONDS)
        return pb.UploadMediaResponse(media=answer.media)

    async def download(self, request: pb.DownloadMediaRequest) -> AsyncIterator[pb.DownloadMediaResponse]:
        """Answer DownloadMedia."""
        byte_range = request.range if request.HasField("range") else None
        asked = store_pb.ReadMediaRequest(sha256=request.sha256, range=byte_range)
        async for message in stream("store", self._stub.ReadMedia, asked):
            yield pb.DownloadMediaResponse(chunk=message.chunk, size_bytes=message.size_bytes)

    async def media_url(self, request: pb.GetMediaUrlRequest) -> pb.GetMediaUrlResponse:
        """Answer GetMediaUrl."""
        asked = store_pb.PresignMediaRequest(
            sha256=request.sha256, expires_seconds=request.expires_seconds, mime_type=request.mime_type
        )
        return pb.GetMediaUrlResponse(url=(await call("store", self._stub.PresignMedia, asked)).url)


async def _puts(requests: AsyncIterator[pb.UploadMediaRequest]) -> AsyncIterator[store_pb.PutMediaRequest]:
    async for request in requests:
        match request.WhichOneof("part"):
            case "header":
                yield store_pb.PutMediaRequest(header=request.header)
            case "chunk":
                yield store_pb.PutMediaRequest(chunk=request.chunk)
            case _:
                yield store_pb.PutMediaRequest()


def _filter(where: filter_pb2.Where) -> filter_pb2.Filter | None:
    condition = from_where(where)
    return None if condition is None else to_message(condition)
