"""Texts encoded once, however many ask."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.common.concurrency.detached import create_detached_task
from services.common.vectors import Matrix
from services.embedder.core.encoder import TextEncoder

Key = bytes
Vectors = dict[Key, Matrix]


@dataclass(slots=True)
class InFlight:
    """Texts being encoded, and how many calls wait for them."""

    keys: frozenset[Key]
    vectors: asyncio.Task[Vectors]
    callers: int = 0


class CachedTextEncoder:
    """A `TextEncoder` that keeps the last `entries` vectors, and lets calls for a text in work share that work.

    The work belongs to no one call: it goes on while any call waits for it, and is cancelled when the last one leaves.
    A text asked for together with others is ready when all of them are.
    """

    def __init__(self, inner: TextEncoder, *, entries: int) -> None:
        self._inner = inner
        self._entries = entries
        self._kept: OrderedDict[Key, Matrix] = OrderedDict()
        self._flights: dict[Key, InFlight] = {}

    async def warm(self) -> None:
        """Get the inner encoder ready."""
        await self._inner.warm()

    async def encode(self, texts: Sequence[str]) -> Matrix:
        """Return the vectors of `texts`, kept, joined or new."""
        if not texts:
            return await self._inner.encode(texts)
        keys = [_key(text) for text in texts]
        vectors = self._remembered(keys)
        flights = self._boarded({key: text for key, text in zip(keys, texts, strict=True) if key not in vectors})
        try:
            for flight in flights:
                # Shielded: when this call is cancelled, the others still want the result.
                vectors |= await asyncio.shield(flight.vectors)
        finally:
            for flight in flights:
                self._leave(flight)
        return np.stack([vectors[key] for key in keys])

    def _remembered(self, keys: Sequence[Key]) -> Vectors:
        found = {key: self._kept[key] for key in keys if key in self._kept}
        for key in found:
            self._kept.move_to_end(key)
        return found

    def _boarded(self, wanted: Mapping[Key, str]) -> list[InFlight]:
        """Return the flights that will bring `wanted`, a new one for what none brings yet; this call counts on each."""
        missing = {key: text for key, text in wanted.items() if key not in self._flights}
        if missing:
            self._depart(missing)
        flights = list({id(flight): flight for flight in (self._flights[key] for key in wanted)}.values())
        for flight in flights:
            flight.callers += 1
        return flights

    def _depart(self, missing: Mapping[Key, str]) -> None:
        task = create_detached_task(self._encode(missing))
        flight = InFlight(frozenset(missing), task)
        self._flights |= dict.fromkeys(missing, flight)
        task.add_done_callback(lambda _: self._land(flight))

    def _leave(self, flight: InFlight) -> None:
        flight.callers -= 1
        if not flight.callers and not flight.vectors.done():
            self._land(flight)
            flight.vectors.cancel()

    def _land(self, flight: InFlight) -> None:
        """Let nobody board `flight` any more."""
        for key in flight.keys:
            if self._flights.get(key) is flight:
                del self._flights[key]

    async def _encode(self, missing: Mapping[Key, str]) -> Vectors:
        encoded = await self._inner.encode(list(missing.values()))
        vectors = {key: vector.copy() for key, vector in zip(missing, encoded, strict=True)}
        self._kept |= vectors
        while len(self._kept) > self._entries:
            self._kept.popitem(last=False)
        return vectors


def _key(text: str) -> Key:
    """Return a key of fixed length, so that what is kept is bounded whatever the texts."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
