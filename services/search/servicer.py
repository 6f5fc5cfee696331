"""SearchService over gRPC: messages in, domain call, messages out."""

from medley.v1 import search_service_pb2 as pb
from medley.v1 import search_service_pb2_grpc as pb_grpc
from services.common.interceptors import Context
from services.search.codec import from_found, from_states, to_query
from services.search.searcher import Searcher


class SearchServicer(pb_grpc.SearchServiceServicer):
    """Translates between the wire and `Searcher`."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher

    async def SearchIndex(self, request: pb.SearchIndexRequest, context: Context) -> pb.SearchIndexResponse:
        return from_found(await self._searcher.search(to_query(request)))

    async def ListIndexes(self, request: pb.ListIndexesRequest, context: Context) -> pb.ListIndexesResponse:
        return from_states(*await self._searcher.list_indexes(request.page_size, request.page_token))
