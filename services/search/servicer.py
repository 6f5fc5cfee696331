"""SearchService over gRPC: messages in, domain call, messages out."""

from collections.abc import AsyncIterator

from medley.v1 import search_service_pb2 as pb
from medley.v1 import search_service_pb2_grpc as pb_grpc
from services.common.names import validate_collection_name
from services.common.rpc.interceptors import Context
from services.common.versions import Version
from services.search.codec import from_found, from_ids, from_rankings, from_reports, to_parts, to_query, version_value
from services.search.query.searcher import Searcher
from services.search.snapshots.scheduler import DropSnapshots


class SearchServicer(pb_grpc.SearchServiceServicer):
    """Translates between the wire and `Searcher`."""

    def __init__(self, searcher: Searcher, drop_snapshots: DropSnapshots) -> None:
        self._searcher = searcher
        self._drop_snapshots = drop_snapshots

    async def SearchIndex(self, request: pb.SearchIndexRequest, context: Context) -> pb.SearchIndexResponse:
        return await self._searcher.search(to_query(request), from_found)

    async def SearchIndexBatch(
        self, request_iterator: AsyncIterator[pb.SearchIndexBatchRequest], context: Context
    ) -> AsyncIterator[pb.SearchIndexBatchResponse]:
        async for response in self._searcher.search_batch(to_parts(request_iterator), from_rankings):
            yield response

    async def ListIndexes(self, request: pb.ListIndexesRequest, context: Context) -> pb.ListIndexesResponse:
        return from_reports(*await self._searcher.list_indexes(request.page_size, request.page_token))

    async def ListIndexItems(
        self, request: pb.ListIndexItemsRequest, context: Context
    ) -> AsyncIterator[pb.ListIndexItemsResponse]:
        found = await self._searcher.item_ids(request.collection, request.space, version_value(request.version))
        for response in from_ids(*found):
            yield response

    async def RebuildIndex(self, request: pb.RebuildIndexRequest, context: Context) -> pb.RebuildIndexResponse:
        return pb.RebuildIndexResponse(version=str(await self._searcher.rebuild(request.collection)))

    async def DropSnapshots(self, request: pb.DropSnapshotsRequest, context: Context) -> pb.DropSnapshotsResponse:
        version = Version.parse(request.version)
        return pb.DropSnapshotsResponse(
            removed=await self._drop_snapshots(validate_collection_name(request.collection), version)
        )
