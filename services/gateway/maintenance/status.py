"""Reports the status of the services: which answer, and what they list."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.common.deadlines import deadline_in
from services.common.errors import NotFoundError, ServiceError
from services.gateway.core.embedder import ModelLister
from services.gateway.core.index import IndexLister, IndexView, ListedIndex
from services.gateway.core.store import CollectionLister, CollectionView, ListedCollection

TIMEOUT_SECONDS = 5.0
ModelView = TypeVar("ModelView")
Listed = TypeVar("Listed")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The health of a service; `error` is None while it answers."""

    name: str
    error: ServiceError | None = None


@dataclass(frozen=True, slots=True)
class CollectionStatus(Generic[CollectionView, IndexView]):
    """A collection, its number of items and its indexes."""

    collection: CollectionView
    items: int
    indexes: Sequence[IndexView]


@dataclass(frozen=True, slots=True)
class Status(Generic[ModelView, CollectionView, IndexView]):
    """The services, and the models and collections that they list."""

    services: Sequence[ServiceStatus]
    models: Sequence[ModelView]
    collections: Sequence[CollectionStatus[CollectionView, IndexView]]


class StatusService(Generic[ModelView, CollectionView, IndexView]):
    """Queries every service; one that does not answer is reported, and its lists are empty."""

    def __init__(
        self,
        embedder: ModelLister[ModelView],
        store: CollectionLister[CollectionView],
        index: IndexLister[IndexView],
    ) -> None:
        self._embedder = embedder
        self._store = store
        self._index = index

    async def get_status(self) -> Status[ModelView, CollectionView, IndexView]:
        """Return the status; each list and each count has a timeout of `TIMEOUT_SECONDS`."""
        (models, embedder), (counts, store), (indexes, search) = await asyncio.gather(
            _attempt("embedder", _with_timeout(self._embedder.list_models())),
            _attempt("store", self._count_items()),
            _attempt("search", _with_timeout(self._index.list_indexes())),
        )
        collections = [
            CollectionStatus(collection.view, items, _views(indexes, collection.name)) for collection, items in counts
        ]
        return Status([embedder, store, search], models, collections)

    async def _count_items(self) -> list[tuple[ListedCollection[CollectionView], int]]:
        counts = []
        for collection in await _with_timeout(self._store.list_collections()):
            try:
                counts.append((collection, await _with_timeout(self._store.count_rows(collection.name))))
            except NotFoundError:  # dropped since it was listed
                continue
        return counts


async def _attempt(name: str, listing: Awaitable[Sequence[Listed]]) -> tuple[Sequence[Listed], ServiceStatus]:
    try:
        return await listing, ServiceStatus(name)
    except ServiceError as error:
        return [], ServiceStatus(name, error)


async def _with_timeout(call: Awaitable[Result]) -> Result:
    with deadline_in(TIMEOUT_SECONDS):
        return await call


def _views(indexes: Sequence[ListedIndex[IndexView]], collection: str) -> list[IndexView]:
    return [index.view for index in indexes if index.collection == collection]
