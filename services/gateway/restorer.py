"""Items written as a backup holds them."""

from functools import partial

from medley.v1 import gateway_service_pb2 as pb
from medley.v1 import store_service_pb2 as store_pb
from services.common.errors import ArgumentError
from services.common.neighbours import call
from services.gateway.catalogue import Catalogue
from services.gateway.items import Collection
from services.gateway.stubs import StoreStub


class Restorer:
    """Hands rows with their vectors on to the store, once it is sure under which passports these were made."""

    def __init__(self, catalogue: Catalogue, store: StoreStub) -> None:
        self._catalogue = catalogue
        self._store = store

    async def restore(self, request: pb.RestoreItemsRequest) -> pb.RestoreItemsResponse:
        """Answer RestoreItems.

        Raises:
            NotFoundError: no such collection, or no such space.
            ArgumentError: vectors of a model without a passport.
            PreconditionError: another passport than the space's; nothing is written.
        """
        return await self._catalogue.with_collection(request.collection, partial(self._restore, request))

    async def _restore(self, request: pb.RestoreItemsRequest, collection: Collection) -> pb.RestoreItemsResponse:
        used = {space for row in request.rows for space in row.vectors}
        made = {space.name for space in collection.spaces if space.model}
        if unknown := sorted(used & made - request.passports.keys()):
            raise ArgumentError("passports", unknown[0], "must tell the passport of each space with a model")
        asked = store_pb.UpsertRowsRequest(
            collection=request.collection, rows=request.rows, passports=request.passports
        )
        answer: store_pb.UpsertRowsResponse = await call("store", self._store.UpsertRows, asked)
        return pb.RestoreItemsResponse(results=answer.results)
