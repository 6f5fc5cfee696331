"""The search service over gRPC."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, cast

from medley.v1 import search_service_pb2 as pb
from medley.v1 import vector_pb2
from services.common.enum_codec import from_proto
from services.common.filter_codec import to_message
from services.common.rpc.client import call, stream
from services.common.vectors import Matrix, to_bytes
from services.gateway.adapters.listing import list_all
from services.gateway.core.index import IndexedIds, IndexHit, IndexResult, ListedIndex, Scope
from services.gateway.core.items import Space
from services.gateway.enums import MODES
from services.gateway.peers import SearchStub

IDS_SECONDS = 60.0
REBUILD_SECONDS = 3600.0


class GrpcIndex:
    """`Index`, `IndexMaintenance` and `IndexLister` over one stub; listed indexes are the API's messages."""

    def __init__(self, stub: SearchStub) -> None:
        self._stub = stub

    async def search(self, scope: Scope, space: Space, vector: Matrix, fingerprint: str, depth: int) -> IndexResult:
        response = await self._search(scope, space, vector, fingerprint=fingerprint, top_k=depth)
        hits = [IndexHit(hit.id, hit.score, hit.spaces) for hit in response.hits]
        mode = from_proto("mode", response.mode, MODES)
        return IndexResult(hits, response.version, mode, response.candidates, response.compared)

    async def list_ids(self, collection: str, space: str, version: str) -> AsyncGenerator[IndexedIds]:
        request = pb.ListIndexItemsRequest(collection=collection, space=space, version=version)
        messages = stream("search", self._stub.ListIndexItems, request, seconds=IDS_SECONDS)
        async with aclosing(cast(Any, messages)) as parts:
            async for part in parts:
                yield IndexedIds(part.ids, part.version)

    async def score(self, scope: Scope, space: Space, item_id: str, vector: Matrix) -> float | None:
        response = await self._search(scope, space, vector, top_k=1, ids=[item_id])
        return response.hits[0].score if response.hits else None

    async def rebuild(self, collection: str) -> None:
        request = pb.RebuildIndexRequest(collection=collection)
        await call("search", self._stub.RebuildIndex, request, seconds=REBUILD_SECONDS)

    async def drop_snapshots(self, collection: str, before: str) -> None:
        request = pb.DropSnapshotsRequest(collection=collection, version=before)
        await call("search", self._stub.DropSnapshots, request)

    async def list_indexes(self) -> list[ListedIndex[pb.Index]]:
        found = await list_all("search", self._stub.ListIndexes, pb.ListIndexesRequest, lambda page: page.indexes)
        return [ListedIndex(message.collection, message) for message in found]

    async def _search(
        self, scope: Scope, space: Space, vector: Matrix, *, top_k: int, fingerprint: str = "", ids: Sequence[str] = ()
    ) -> pb.SearchIndexResponse:
        request = pb.SearchIndexRequest(
            collection=scope.collection,
            space=space.name,
            vector=vector_pb2.Vector(float32_le=to_bytes(vector)),
            fingerprint=fingerprint,
            top_k=top_k,
            filter=to_message(scope.condition) if scope.condition else None,
            version=scope.version,
            exact=scope.exact,
            ids=ids,
        )
        response: pb.SearchIndexResponse = await call("search", self._stub.SearchIndex, request)
        return response
