"""GatewayService over gRPC: messages in, domain call, messages out."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from medley.v1 import collection_pb2, item_pb2
from medley.v1 import gateway_service_pb2 as pb
from medley.v1 import gateway_service_pb2_grpc as pb_grpc
from services.common.interceptors import Context
from services.gateway.checker import Checker
from services.gateway.codec import from_create, from_ingest, from_search, from_update, to_checked, to_found, to_ingested
from services.gateway.eraser import Eraser
from services.gateway.ingester import Ingester
from services.gateway.overview import Overview
from services.gateway.relay import StoreRelay
from services.gateway.restorer import Restorer
from services.gateway.searcher import Searcher
from services.gateway.spaces import Founder
from services.gateway.updater import Updater


@dataclass(frozen=True, slots=True)
class Desk:
    """Who answers: the domain, and for calls in which nothing is decided the relay."""

    founder: Founder[collection_pb2.Collection]
    ingester: Ingester
    updater: Updater[item_pb2.Item]
    searcher: Searcher[item_pb2.Item]
    relay: StoreRelay
    overview: Overview
    checker: Checker
    restorer: Restorer
    eraser: Eraser


class GatewayServicer(pb_grpc.GatewayServiceServicer):
    """Translates between the wire and those at the desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def CreateCollection(
        self, request: pb.CreateCollectionRequest, context: Context
    ) -> pb.CreateCollectionResponse:
        return pb.CreateCollectionResponse(collection=await self._desk.founder.create(*from_create(request)))

    async def GetCollection(self, request: pb.GetCollectionRequest, context: Context) -> pb.GetCollectionResponse:
        return await self._desk.relay.get_collection(request)

    async def ListCollections(self, request: pb.ListCollectionsRequest, context: Context) -> pb.ListCollectionsResponse:
        return await self._desk.relay.list_collections(request)

    async def UpdateSpace(self, request: pb.UpdateSpaceRequest, context: Context) -> pb.UpdateSpaceResponse:
        return await self._desk.relay.update_space(request)

    async def DropCollection(self, request: pb.DropCollectionRequest, context: Context) -> pb.DropCollectionResponse:
        return await self._desk.relay.drop_collection(request)

    async def IngestItems(
        self, request_iterator: AsyncIterator[pb.IngestItemsRequest], context: Context
    ) -> AsyncIterator[pb.IngestItemsResponse]:
        async for answers in self._desk.ingester.ingest(*await from_ingest(request_iterator)):
            yield to_ingested(answers)

    async def UpdateItem(self, request: pb.UpdateItemRequest, context: Context) -> pb.UpdateItemResponse:
        item, version = await self._desk.updater.update(from_update(request))
        return pb.UpdateItemResponse(item=item, version=version)

    async def GetItems(self, request: pb.GetItemsRequest, context: Context) -> pb.GetItemsResponse:
        return await self._desk.relay.get_items(request)

    async def ListItems(self, request: pb.ListItemsRequest, context: Context) -> pb.ListItemsResponse:
        return await self._desk.relay.list_items(request)

    async def CountItems(self, request: pb.CountItemsRequest, context: Context) -> pb.CountItemsResponse:
        return await self._desk.relay.count_items(request)

    async def DeleteItems(self, request: pb.DeleteItemsRequest, context: Context) -> pb.DeleteItemsResponse:
        return await self._desk.relay.delete_items(request)

    async def UploadMedia(
        self, request_iterator: AsyncIterator[pb.UploadMediaRequest], context: Context
    ) -> pb.UploadMediaResponse:
        return await self._desk.relay.upload(request_iterator)

    async def DownloadMedia(
        self, request: pb.DownloadMediaRequest, context: Context
    ) -> AsyncIterator[pb.DownloadMediaResponse]:
        async for response in self._desk.relay.download(request):
            yield response

    async def GetMediaUrl(self, request: pb.GetMediaUrlRequest, context: Context) -> pb.GetMediaUrlResponse:
        return await self._desk.relay.media_url(request)

    async def Search(self, request: pb.SearchRequest, context: Context) -> pb.SearchResponse:
        return to_found(await self._desk.searcher.search(from_search(request)))

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        return await self._desk.overview.status()

    async def CheckCollections(
        self, request: pb.CheckCollectionsRequest, context: Context
    ) -> AsyncIterator[pb.CheckCollectionsResponse]:
        async for part in self._desk.checker.check(request):
            yield to_checked(part)

    async def TagCollection(self, request: pb.TagCollectionRequest, context: Context) -> pb.TagCollectionResponse:
        return await self._desk.relay.tag(request)

    async def ListTags(self, request: pb.ListTagsRequest, context: Context) -> pb.ListTagsResponse:
        return await self._desk.relay.list_tags(request)

    async def DeleteTag(self, request: pb.DeleteTagRequest, context: Context) -> pb.DeleteTagResponse:
        return await self._desk.relay.delete_tag(request)

    async def RestoreItems(self, request: pb.RestoreItemsRequest, context: Context) -> pb.RestoreItemsResponse:
        return await self._desk.restorer.restore(request)

    async def EraseItems(self, request: pb.EraseItemsRequest, context: Context) -> pb.EraseItemsResponse:
        return await self._desk.eraser.erase(request)
