"""What the services are doing: each is asked for all it can list."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.common.deadlines import deadline_in
from services.common.errors import NotFoundError, ServiceError
from services.gateway.core.embedder import ModelLister
from services.gateway.core.index import IndexLister, IndexView, ListedIndex
from services.gateway.core.store import CollectionLister, CollectionView, ListedCollection

ANSWER_SECONDS = 5.0
ModelView = TypeVar("ModelView")
Listed = TypeVar("Listed")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """Whether a service answers: None, or what is wrong."""

    name: str
    error: ServiceError | None = None


@dataclass(frozen=True, slots=True)
class CollectionStatus(Generic[CollectionView, IndexView]):
    """A collection, how many items it has, and its indexes."""

    collection: CollectionView
    items: int
    indexes: Sequence[IndexView]


@dataclass(frozen=True, slots=True)
class Status(Generic[ModelView, CollectionView, IndexView]):
    """The services, and what they list."""

    services: Sequence[ServiceStatus]
    models: Sequence[ModelView]
    collections: Sequence[CollectionStatus[CollectionView, IndexView]]


class StatusService(Generic[ModelView, CollectionView, IndexView]):
    """Asks every service; one that does not answer is reported, and what it would have listed is left out."""

    def __init__(
        self,
        embedder: ModelLister[ModelView],
        store: CollectionLister[CollectionView],
        index: IndexLister[IndexView],
    ) -> None:
        self._embedder = embedder
        self._store = store
        self._index = index

    async def status(self) -> Status[ModelView, CollectionView, IndexView]:
        """Return what every service lists; each is waited for at most `ANSWER_SECONDS` a list, and as long a count."""
        (models, embedder), (counted, store), (indexes, search) = await asyncio.gather(
            _attempt("embedder", _bound(self._embedder.models())),
            _attempt("store", self._count_all()),
            _attempt("search", _bound(self._index.indexes())),
        )
        collections = [
            CollectionStatus(collection.view, items, _views(indexes, collection.name)) for collection, items in counted
        ]
        return Status([embedder, store, search], models, collections)

    async def _count_all(self) -> list[tuple[ListedCollection[CollectionView], int]]:
        counted = []
        for collection in await _bound(self._store.collections()):
            try:
                counted.append((collection, await _bound(self._store.count(collection.name))))
            except NotFoundError:  # dropped since it was listed
                continue
        return counted


async def _attempt(name: str, listing: Awaitable[Sequence[Listed]]) -> tuple[Sequence[Listed], ServiceStatus]:
    try:
        return await listing, ServiceStatus(name)
    except ServiceError as error:
        return [], ServiceStatus(name, error)


async def _bound(call: Awaitable[Result]) -> Result:
    with deadline_in(ANSWER_SECONDS):
        return await call


def _views(indexes: Sequence[ListedIndex[IndexView]], collection: str) -> list[IndexView]:
    return [index.view for index in indexes if index.collection == collection]
