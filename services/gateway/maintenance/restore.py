"""Restores items with the vectors of a backup."""

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
    """Rows as received, the spaces in which any has a vector, and the fingerprints of the vectors by space."""

    collection: str
    rows: Sequence[RowView]
    spaces: frozenset[str]
    fingerprints: Mapping[str, str]


class Restore(Generic[RowView, ResultView]):
    """Writes rows with their vectors, which need a fingerprint for each space with a model."""

    def __init__(self, cache: MetadataCache, store: RowRestorer[RowView, ResultView]) -> None:
        self._cache = cache
        self._store = store

    async def restore(self, request: RestoreRequest[RowView]) -> Sequence[ResultView]:
        """Write the rows; return the outcome of each, in order.

        Raises:
            NotFoundError: no such collection, or no such space.
            ArgumentError: a space with a model has vectors but no fingerprint.
            PreconditionError: a fingerprint differs from its space's; nothing is written.
        """
        return await self._cache.with_collection(request.collection, partial(self._restore, request))

    async def _restore(self, request: RestoreRequest[RowView], collection: Collection) -> Sequence[ResultView]:
        model_spaces = {space.name for space in collection.spaces if space.model}
        if unknown := sorted(request.spaces & model_spaces - request.fingerprints.keys()):
            raise ArgumentError("fingerprints", unknown[0], "must contain the fingerprint of each space with a model")
        return await self._store.restore(request.collection, request.rows, request.fingerprints)
