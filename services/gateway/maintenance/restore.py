"""Items written as a backup holds them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from services.common.errors import ArgumentError
from services.gateway.core.items import Collection
from services.gateway.core.metadata_cache import MetadataCache
from services.gateway.core.store import RowRestorer

RowView = TypeVar("RowView")
ResultView = TypeVar("ResultView")


@dataclass(frozen=True, slots=True)
class RestoreRequest(Generic[RowView]):
    """Rows as callers sent them, the spaces in which any has a vector, and the fingerprints of vectors by space."""

    collection: str
    rows: Sequence[RowView]
    spaces: frozenset[str]
    fingerprints: Mapping[str, str]


class Restore(Generic[RowView, ResultView]):
    """Hands rows with their vectors on to the store, once it is sure under which fingerprints these were made."""

    def __init__(self, catalogue: MetadataCache, store: RowRestorer[RowView, ResultView]) -> None:
        self._catalogue = catalogue
        self._store = store

    async def restore(self, request: RestoreRequest[RowView]) -> Sequence[ResultView]:
        """Write the rows; return what became of each, in order.

        Raises:
            NotFoundError: no such collection, or no such space.
            ArgumentError: vectors of a model without a fingerprint.
            PreconditionError: another fingerprint than the space's; nothing is written.
        """
        return await self._catalogue.with_collection(request.collection, partial(self._restore, request))

    async def _restore(self, request: RestoreRequest[RowView], collection: Collection) -> Sequence[ResultView]:
        made = {space.name for space in collection.spaces if space.model}
        if unknown := sorted(request.spaces & made - request.fingerprints.keys()):
            raise ArgumentError("fingerprints", unknown[0], "must tell the fingerprint of each space with a model")
        return await self._store.restore(request.collection, request.rows, request.fingerprints)
