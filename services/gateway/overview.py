"""What the services are doing: each is asked for all it can list."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from medley.v1 import collection_pb2, embedder_service_pb2, search_service_pb2, store_service_pb2
from medley.v1 import gateway_service_pb2 as pb
from services.common.errors import NotFoundError, ServiceError
from services.common.neighbours import call
from services.common.paging import MAX_PAGE_SIZE
from services.common.statuses import to_status
from services.gateway.stubs import Neighbours

ANSWER_SECONDS = 5.0
Listed = TypeVar("Listed")


class Overview:
    """Asks every service; one that does not answer is reported, and what it would have listed is left out."""

    def __init__(self, neighbours: Neighbours) -> None:
        self._embedder = neighbours.embedder
        self._store = neighbours.store
        self._search = neighbours.search

    async def status(self) -> pb.GetStatusResponse:
        """Answer GetStatus."""
        (models, embedder), (collections, store), (indexes, search) = await asyncio.gather(
            _tried("embedder", self._models()), _tried("store", self._collections()), _tried("search", self._indexes())
        )
        return pb.GetStatusResponse(
            services=[embedder, store, search],
            models=models,
            collections=[_with_indexes(status, indexes) for status in collections],
        )

    async def _models(self) -> list[embedder_service_pb2.Model]:
        request = embedder_service_pb2.ListModelsRequest
        return await _all("embedder", self._embedder.ListModels, request, lambda page: page.models)

    async def _indexes(self) -> list[search_service_pb2.Index]:
        request = search_service_pb2.ListIndexesRequest
        return await _all("search", self._search.ListIndexes, request, lambda page: page.indexes)

    async def _collections(self) -> list[pb.CollectionStatus]:
        request = store_service_pb2.ListTablesRequest
        collections = await _all("store", self._store.ListTables, request, lambda page: page.collections)
        counted = [await self._counted(collection) for collection in collections]
        return [status for status in counted if status is not None]

    async def _counted(self, collection: collection_pb2.Collection) -> pb.CollectionStatus | None:
        request = store_service_pb2.CountRowsRequest(collection=collection.name)
        try:
            answer = await call("store", self._store.CountRows, request, seconds=ANSWER_SECONDS)
        except NotFoundError:  # dropped since it was listed
            return None
        return pb.CollectionStatus(collection=collection, items=answer.count)


async def _tried(name: str, listing: Awaitable[list[Listed]]) -> tuple[list[Listed], pb.ServiceStatus]:
    try:
        return await listing, pb.ServiceStatus(name=name)
    except ServiceError as error:
        return [], pb.ServiceStatus(name=name, error=to_status(error))


async def _all(
    service: str, method: Callable[..., Any], request: Callable[..., Any], listed: Callable[[Any], Sequence[Listed]]
) -> list[Listed]:
    """Return what all pages list."""
    page = await call(service, method, request(page_size=MAX_PAGE_SIZE), seconds=ANSWER_SECONDS)
    found = list(listed(page))
    while page.next_page_token:
        following = request(page_size=MAX_PAGE_SIZE, page_token=page.next_page_token)
        page = await call(service, method, following, seconds=ANSWER_SECONDS)
        found += listed(page)
    return found


def _with_indexes(status: pb.CollectionStatus, indexes: Sequence[search_service_pb2.Index]) -> pb.CollectionStatus:
    mine = [index for index in indexes if index.collection == status.collection.name]
    return pb.CollectionStatus(collection=status.collection, items=status.items, indexes=mine)
