"""The search service, by its API."""

from medley.v1 import search_service_pb2 as pb
from medley.v1 import vector_pb2
from services.common.filter_codec import to_message
from services.common.neighbours import call
from services.common.vectors import Matrix, to_bytes
from services.gateway.enums import MODES, kind_of
from services.gateway.index import IndexAnswer, IndexHit, Scope
from services.gateway.items import Space
from services.gateway.stubs import SearchStub


class GrpcIndex:
    """`Index` over a stub."""

    def __init__(self, stub: SearchStub) -> None:
        self._stub = stub

    async def search(self, scope: Scope, space: Space, vector: Matrix, passport: str, depth: int) -> IndexAnswer:
        """Ask for the nearest items in one space."""
        request = pb.SearchIndexRequest(
            collection=scope.collection,
            space=space.name,
            vector=vector_pb2.Vector(float32_le=to_bytes(vector)),
            passport=passport,
            top_k=depth,
            filter=to_message(scope.condition) if scope.condition else None,
            version=scope.version,
            exact=scope.exact,
        )
        response: pb.SearchIndexResponse = await call("search", self._stub.SearchIndex, request)
        hits = [IndexHit(hit.id, hit.score, hit.spaces) for hit in response.hits]
        mode = kind_of("mode", response.mode, MODES)
        return IndexAnswer(hits, response.version, mode, response.candidates, response.compared)
