"""Caches the definitions of collections and models for a short time."""

import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from services.common.errors import ServiceError
from services.common.names import validate_collection_name
from services.gateway.core.embedder import Embedder, Model
from services.gateway.core.items import Collection
from services.gateway.core.store import CollectionStore

Value = TypeVar("Value")
Result = TypeVar("Result")

STALE_REASONS = frozenset({"COLLECTION_NOT_FOUND", "SPACE_NOT_FOUND", "FINGERPRINT_MISMATCH", "VERSION_UNKNOWN"})
"""Reasons of errors that a stale definition may cause."""


class TtlCache(Generic[Value]):
    """Values by name, each loaded on first use and again after `seconds`."""

    def __init__(self, load: Callable[[str], Awaitable[Value]], seconds: float) -> None:
        self._load = load
        self._seconds = seconds
        self._values: dict[str, tuple[Value, float]] = {}

    async def get(self, name: str) -> Value:
        """Return the value of `name`; an error while loading is raised and not cached."""
        if name in self:
            return self._values[name][0]
        value = await self._load(name)
        self._evict_expired()
        self._values[name] = (value, time.monotonic() + self._seconds)
        return value

    def __contains__(self, name: str) -> bool:
        """Return whether `get` would answer without loading."""
        return name in self._values and time.monotonic() < self._values[name][1]

    def invalidate(self, name: str) -> None:
        """Load `name` again on its next use."""
        self._values.pop(name, None)

    def _evict_expired(self) -> None:
        now = time.monotonic()
        self._values = {name: entry for name, entry in self._values.items() if now < entry[1]}


class MetadataCache:
    """Collections and models by name; each is read at most once in `seconds`."""

    def __init__(self, store: CollectionStore[object], embedder: Embedder, seconds: float) -> None:
        self._collections = TtlCache(store.get_collection, seconds)
        self._models = TtlCache(embedder.get_model, seconds)

    async def get_collection(self, name: str) -> Collection:
        """Return a collection by name.

        Raises:
            ArgumentError: the name is not valid.
            NotFoundError: no such collection.
        """
        return await self._collections.get(validate_collection_name(name))

    async def get_model(self, name: str) -> Model:
        """Return a model by name.

        Raises:
            NotFoundError: no such model.
        """
        return await self._models.get(name)

    async def with_collection(self, name: str, action: Callable[[Collection], Awaitable[Result]]) -> Result:
        """Return the result of `action` on a collection; if the cached definition proves stale, read it and repeat."""
        cached = name in self._collections
        try:
            return await action(await self.get_collection(name))
        except ServiceError as error:
            if error.reason not in STALE_REASONS:
                raise
            self.invalidate(name)
            if not cached:
                raise
        return await action(await self.get_collection(name))

    def invalidate(self, name: str) -> None:
        """Read the collection again on its next use."""
        self._collections.invalidate(name)
