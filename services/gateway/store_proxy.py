"""Passes calls on to the store: the same request to the store, its response to the caller."""

from collections.abc import AsyncIterator

from medley.v1 import filter_pb2
from medley.v1 import gateway_service_pb2 as pb
from medley.v1 import store_service_pb2 as store_pb
from services.common.filter_codec import from_where, to_message
from services.common.rpc.client import STREAM_SECONDS, call, stream
from services.gateway.peers import StoreStub


class StoreProxy:
    """Passes calls on to the store; a method answers the RPC of its name."""

    def __init__(self, stub: StoreStub) -> None:
        self._stub = stub

    async def get_collection(self, request: pb.GetCollectionRequest) -> pb.GetCollectionResponse:
        response = await call("store", self._stub.GetTable, store_pb.GetTableRequest(name=request.name))
        return pb.GetCollectionResponse(collection=response.collection)

    async def list_collections(self, request: pb.ListCollectionsRequest) -> pb.ListCollectionsResponse:
        store_request = store_pb.ListTablesRequest(page_size=request.page_size, page_token=request.page_token)
        response = await call("store", self._stub.ListTables, store_request)
        return pb.ListCollectionsResponse(collections=response.collections, next_page_token=response.next_page_token)

    async def update_space(self, request: pb.UpdateSpaceRequest) -> pb.UpdateSpaceResponse:
        store_request = store_pb.UpdateTableSpaceRequest(
            collection=request.collection,
            space=request.space,
            index=request.index if request.HasField("index") else None,
        )
        response = await call("store", self._stub.UpdateTableSpace, store_request)
        return pb.UpdateSpaceResponse(collection=response.collection)

    async def drop_collection(self, request: pb.DropCollectionRequest) -> pb.DropCollectionResponse:
        await call("store", self._stub.DropTable, store_pb.DropTableRequest(name=request.name))
        return pb.DropCollectionResponse()

    async def get_items(self, request: pb.GetItemsRequest) -> pb.GetItemsResponse:
        store_request = store_pb.GetRowsRequest(
            collection=request.collection, ids=request.ids, fields=request.fields, as_of=request.as_of
        )
        response = await call("store", self._stub.GetRows, store_request)
        return pb.GetItemsResponse(lookups=response.lookups)

    async def list_items(self, request: pb.ListItemsRequest) -> pb.ListItemsResponse:
        store_request = store_pb.ListRowsRequest(
            collection=request.collection,
            filter=_filter(request.where),
            page_size=request.page_size,
            page_token=request.page_token,
            fields=request.fields,
            as_of=request.as_of,
        )
        response = await call("store", self._stub.ListRows, store_request)
        return pb.ListItemsResponse(items=response.items, next_page_token=response.next_page_token)

    async def count_items(self, request: pb.CountItemsRequest) -> pb.CountItemsResponse:
        condition = _filter(request.where)
        store_request = store_pb.CountRowsRequest(collection=request.collection, filter=condition, as_of=request.as_of)
        response = await call("store", self._stub.CountRows, store_request)
        return pb.CountItemsResponse(count=response.count)

    async def delete_items(self, request: pb.DeleteItemsRequest) -> pb.DeleteItemsResponse:
        # An empty filter becomes no selection, which the store refuses.
        store_request = store_pb.DeleteRowsRequest(
            collection=request.collection,
            ids=request.ids if request.HasField("ids") else None,
            filter=_filter(request.where),
        )
        response = await call("store", self._stub.DeleteRows, store_request)
        return pb.DeleteItemsResponse(deleted=response.deleted, version=response.version)

    async def tag_collection(self, request: pb.TagCollectionRequest) -> pb.TagCollectionResponse:
        store_request = store_pb.TagTableRequest(
            collection=request.collection, tag=request.tag, version=request.version
        )
        response = await call("store", self._stub.TagTable, store_request)
        return pb.TagCollectionResponse(tag=response.tag)

    async def list_tags(self, request: pb.ListTagsRequest) -> pb.ListTagsResponse:
        store_request = store_pb.ListTableTagsRequest(collection=request.collection)
        response = await call("store", self._stub.ListTableTags, store_request)
        return pb.ListTagsResponse(tags=response.tags)

    async def delete_tag(self, request: pb.DeleteTagRequest) -> pb.DeleteTagResponse:
        store_request = store_pb.DeleteTableTagRequest(collection=request.collection, tag=request.tag)
        await call("store", self._stub.DeleteTableTag, store_request)
        return pb.DeleteTagResponse()

    async def upload_media(self, requests: AsyncIterator[pb.UploadMediaRequest]) -> pb.UploadMediaResponse:
        response = await call("store", self._stub.PutMedia, _put_requests(requests), seconds=STREAM_SECONDS)
        return pb.UploadMediaResponse(media=response.media)

    async def download_media(self, request: pb.DownloadMediaRequest) -> AsyncIterator[pb.DownloadMediaResponse]:
        byte_range = request.range if request.HasField("range") else None
        store_request = store_pb.ReadMediaRequest(sha256=request.sha256, range=byte_range)
        async for message in stream("store", self._stub.ReadMedia, store_request):
            yield pb.DownloadMediaResponse(chunk=message.chunk, size_bytes=message.size_bytes)

    async def get_media_url(self, request: pb.GetMediaUrlRequest) -> pb.GetMediaUrlResponse:
        store_request = store_pb.PresignMediaRequest(
            sha256=request.sha256, expires_seconds=request.expires_seconds, mime_type=request.mime_type
        )
        return pb.GetMediaUrlResponse(url=(await call("store", self._stub.PresignMedia, store_request)).url)


async def _put_requests(requests: AsyncIterator[pb.UploadMediaRequest]) -> AsyncIterator[store_pb.PutMediaRequest]:
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
