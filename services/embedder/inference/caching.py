"""A cache of text vectors; concurrent calls for the same text share one computation."""

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
    """A `TextEncoder` that caches the `entries` most recently used vectors and deduplicates concurrent requests.

    A computation belongs to no single call: it continues while any call waits for it, and is cancelled when the last
    one is cancelled. The texts of one computation become available together.
    """

    def __init__(self, inner: TextEncoder, *, entries: int) -> None:
        self._inner = inner
        self._entries = entries
        self._cache: OrderedDict[Key, Matrix] = OrderedDict()
        self._in_flight: dict[Key, InFlight] = {}

    async def warm(self) -> None:
        await self._inner.warm()

    async def encode(self, texts: Sequence[str]) -> Matrix:
        if not texts:
            return await self._inner.encode(texts)
        keys = [_key(text) for text in texts]
        vectors = self._look_up(keys)
        computations = self._join({key: text for key, text in zip(keys, texts, strict=True) if key not in vectors})
        try:
            for computation in computations:
                # Shielded: when this call is cancelled, other calls still need the result.
                vectors |= await asyncio.shield(computation.vectors)
        finally:
            for computation in computations:
                self._leave(computation)
        return np.stack([vectors[key] for key in keys])

    def _look_up(self, keys: Sequence[Key]) -> Vectors:
        found = {key: self._cache[key] for key in keys if key in self._cache}
        for key in found:
            self._cache.move_to_end(key)
        return found

    def _join(self, texts: Mapping[Key, str]) -> list[InFlight]:
        """Return the computations in flight for `texts`, counting this call in each; start one for those without."""
        missing = {key: text for key, text in texts.items() if key not in self._in_flight}
        if missing:
            self._start(missing)
        found = (self._in_flight[key] for key in texts)
        computations = list({id(computation): computation for computation in found}.values())
        for computation in computations:
            computation.callers += 1
        return computations

    def _start(self, missing: Mapping[Key, str]) -> None:
        task = create_detached_task(self._encode(missing))
        computation = InFlight(frozenset(missing), task)
        self._in_flight |= dict.fromkeys(missing, computation)
        task.add_done_callback(lambda _: self._finish(computation))

    def _leave(self, computation: InFlight) -> None:
        computation.callers -= 1
        if not computation.callers and not computation.vectors.done():
            self._finish(computation)
            computation.vectors.cancel()

    def _finish(self, computation: InFlight) -> None:
        """Remove `computation`, so that no further call joins it."""
        for key in computation.keys:
            if self._in_flight.get(key) is computation:
                del self._in_flight[key]

    async def _encode(self, missing: Mapping[Key, str]) -> Vectors:
        encoded = await self._inner.encode(list(missing.values()))
        vectors = {key: vector.copy() for key, vector in zip(missing, encoded, strict=True)}
        self._cache |= vectors
        while len(self._cache) > self._entries:
            self._cache.popitem(last=False)
        return vectors


def _key(text: str) -> Key:
    """Return a key of fixed length, so that the size of the cache does not depend on the length of the texts."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
