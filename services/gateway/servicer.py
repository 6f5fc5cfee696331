"""GatewayService over gRPC: each method decodes a request, calls a handler and encodes the response."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from medley.v1 import collection_pb2, embedder_service_pb2, item_pb2, search_service_pb2, store_service_pb2
from medley.v1 import gateway_service_pb2 as pb
from medley.v1 import gateway_service_pb2_grpc as pb_grpc
from services.common.rpc.interceptors import Context
from services.gateway.codec import (
    from_create_request,
    from_ingest_requests,
    from_search_request,
    from_update_request,
    to_ingest_response,
    to_search_response,
)
from services.gateway.core.collection_factory import CollectionFactory
from services.gateway.ingest.pipeline import IngestPipeline
from services.gateway.ingest.updater import Updater
from services.gateway.maintenance.erasure import Erasure
from services.gateway.maintenance.integrity_check import IntegrityCheck
from services.gateway.maintenance.restore import Restore
from services.gateway.maintenance.status import StatusService
from services.gateway.maintenance_codec import (
    from_check_request,
    from_restore_request,
    to_check_response,
    to_erase_response,
    to_restore_response,
    to_status_response,
)
from services.gateway.search.searcher import Searcher
from services.gateway.store_proxy import StoreProxy


@dataclass(frozen=True, slots=True)
class Handlers:
    """The handlers behind each RPC; the store proxy serves those that need no logic of the gateway."""

    collection_factory: CollectionFactory[collection_pb2.Collection]
    ingest_pipeline: IngestPipeline
    updater: Updater[item_pb2.Item]
    searcher: Searcher[item_pb2.Item]
    store_proxy: StoreProxy
    status: StatusService[embedder_service_pb2.Model, collection_pb2.Collection, search_service_pb2.Index]
    check: IntegrityCheck
    restore: Restore[store_service_pb2.Row, item_pb2.ItemResult]
    erasure: Erasure


class GatewayServicer(pb_grpc.GatewayServiceServicer):
    """Serves the public API."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    async def CreateCollection(
        self, request: pb.CreateCollectionRequest, context: Context
    ) -> pb.CreateCollectionResponse:
        return pb.CreateCollectionResponse(
            collection=await self._handlers.collection_factory.create(*from_create_request(request))
        )

    async def GetCollection(self, request: pb.GetCollectionRequest, context: Context) -> pb.GetCollectionResponse:
        return await self._handlers.store_proxy.get_collection(request)

    async def ListCollections(self, request: pb.ListCollectionsRequest, context: Context) -> pb.ListCollectionsResponse:
        return await self._handlers.store_proxy.list_collections(request)

    async def UpdateSpace(self, request: pb.UpdateSpaceRequest, context: Context) -> pb.UpdateSpaceResponse:
        return await self._handlers.store_proxy.update_space(request)

    async def DropCollection(self, request: pb.DropCollectionRequest, context: Context) -> pb.DropCollectionResponse:
        return await self._handlers.store_proxy.drop_collection(request)

    async def IngestItems(
        self, request_iterator: AsyncIterator[pb.IngestItemsRequest], context: Context
    ) -> AsyncIterator[pb.IngestItemsResponse]:
        async for results in self._handlers.ingest_pipeline.ingest(*await from_ingest_requests(request_iterator)):
            yield to_ingest_response(results)

    async def UpdateItem(self, request: pb.UpdateItemRequest, context: Context) -> pb.UpdateItemResponse:
        item, version = await self._handlers.updater.update(from_update_request(request))
        return pb.UpdateItemResponse(item=item, version=version)

    async def GetItems(self, request: pb.GetItemsRequest, context: Context) -> pb.GetItemsResponse:
        return await self._handlers.store_proxy.get_items(request)

    async def ListItems(self, request: pb.ListItemsRequest, context: Context) -> pb.ListItemsResponse:
        return await self._handlers.store_proxy.list_items(request)

    async def CountItems(self, request: pb.CountItemsRequest, context: Context) -> pb.CountItemsResponse:
        return await self._handlers.store_proxy.count_items(request)

    async def DeleteItems(self, request: pb.DeleteItemsRequest, context: Context) -> pb.DeleteItemsResponse:
        return await self._handlers.store_proxy.delete_items(request)

    async def UploadMedia(
        self, request_iterator: AsyncIterator[pb.UploadMediaRequest], context: Context
    ) -> pb.UploadMediaResponse:
        return await self._handlers.store_proxy.upload_media(request_iterator)

    async def DownloadMedia(
        self, request: pb.DownloadMediaRequest, context: Context
    ) -> AsyncIterator[pb.DownloadMediaResponse]:
        async for response in self._handlers.store_proxy.download_media(request):
            yield response

    async def GetMediaUrl(self, request: pb.GetMediaUrlRequest, context: Context) -> pb.GetMediaUrlResponse:
        return await self._handlers.store_proxy.get_media_url(request)

    async def Search(self, request: pb.SearchRequest, context: Context) -> pb.SearchResponse:
        return to_search_response(await self._handlers.searcher.search(from_search_request(request)))

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        return to_status_response(await self._handlers.status.get_status())

    async def CheckCollections(
        self, request: pb.CheckCollectionsRequest, context: Context
    ) -> AsyncIterator[pb.CheckCollectionsResponse]:
        async for part in self._handlers.check.check(from_check_request(request)):
            yield to_check_response(part)

    async def TagCollection(self, request: pb.TagCollectionRequest, context: Context) -> pb.TagCollectionResponse:
        return await self._handlers.store_proxy.tag_collection(request)

    async def ListTags(self, request: pb.ListTagsRequest, context: Context) -> pb.ListTagsResponse:
        return await self._handlers.store_proxy.list_tags(request)

    async def DeleteTag(self, request: pb.DeleteTagRequest, context: Context) -> pb.DeleteTagResponse:
        return await self._handlers.store_proxy.delete_tag(request)

    async def RestoreItems(self, request: pb.RestoreItemsRequest, context: Context) -> pb.RestoreItemsResponse:
        return to_restore_response(await self._handlers.restore.restore(from_restore_request(request)))

    async def EraseItems(self, request: pb.EraseItemsRequest, context: Context) -> pb.EraseItemsResponse:
        receipts = await self._handlers.erasure.erase(request.collection, request.ids, request.sha256s)
        return to_erase_response(receipts)
