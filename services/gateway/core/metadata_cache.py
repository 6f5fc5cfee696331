"""What is known of collections and models, kept for a short while."""

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

OUTDATED = frozenset({"COLLECTION_NOT_FOUND", "SPACE_NOT_FOUND", "FINGERPRINT_MISMATCH", "VERSION_UNKNOWN"})
"""Reasons that a definition kept too long gives."""


class TtlCache(Generic[Value]):
    """Values by name, each loaded when first wanted and again after `seconds`."""

    def __init__(self, load: Callable[[str], Awaitable[Value]], seconds: float) -> None:
        self._load = load
        self._seconds = seconds
        self._values: dict[str, tuple[Value, float]] = {}

    async def get(self, name: str) -> Value:
        """Return the value of `name`; an error of loading it is raised and not kept."""
        if self.has(name):
            return self._values[name][0]
        value = await self._load(name)
        self._forget_old()
        self._values[name] = (value, time.monotonic() + self._seconds)
        return value

    def has(self, name: str) -> bool:
        """Return whether `get` would answer without loading."""
        return name in self._values and time.monotonic() < self._values[name][1]

    def forget(self, name: str) -> None:
        """Load `name` anew next time."""
        self._values.pop(name, None)

    def _forget_old(self) -> None:
        now = time.monotonic()
        self._values = {name: kept for name, kept in self._values.items() if now < kept[1]}


class MetadataCache:
    """Collections and models by name; each is asked for at most once in `seconds`."""

    def __init__(self, store: CollectionStore[object], embedder: Embedder, seconds: float) -> None:
        self._collections = TtlCache(store.collection, seconds)
        self._models = TtlCache(embedder.model, seconds)

    async def collection(self, name: str) -> Collection:
        """Return the collection of the name.

        Raises:
            ArgumentError: no collection can have it.
            NotFoundError: none has it.
        """
        return await self._collections.get(validate_collection_name(name))

    async def model(self, name: str) -> Model:
        """Return the model of the name.

        Raises:
            NotFoundError: the catalogue has none.
        """
        return await self._models.get(name)

    async def with_collection(self, name: str, action: Callable[[Collection], Awaitable[Result]]) -> Result:
        """Return what `action` makes of the collection; where the one kept turns out outdated, act on the newest."""
        kept = self._collections.has(name)
        try:
            return await action(await self.collection(name))
        except ServiceError as error:
            if error.reason not in OUTDATED:
                raise
            self.forget(name)
            if not kept:
                raise
        return await action(await self.collection(name))

    def forget(self, name: str) -> None:
        """Ask for the collection anew next time."""
        self._collections.forget(name)
