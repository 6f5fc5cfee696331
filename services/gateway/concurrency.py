"""No more than so many, and no more than so much, at a time."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from services.common.errors import OverloadedError


class Slots:
    """At most `limit` users at a time; one more is refused at once. `queue` names them in the refusal."""

    def __init__(self, queue: str, limit: int) -> None:
        self._queue = queue
        self._limit = limit
        self._taken = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold a slot while the block runs.

        Raises:
            OverloadedError: all are taken.
        """
        if self._taken >= self._limit:
            raise OverloadedError(f"{self._limit} {self._queue} are running", queue=self._queue, limit=str(self._limit))
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class Budget:
    """An amount that is taken and given back; who takes more than is left waits, first come first served."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._turn = asyncio.Lock()
        self._given = asyncio.Event()

    async def take(self, amount: int) -> None:
        """Wait until `amount` fits, or until nothing else is taken: one amount over the limit goes alone."""
        async with self._turn:
            while self._used and self._used + amount > self._limit:
                self._given.clear()
                await self._given.wait()
            self._used += amount

    @asynccontextmanager
    async def taken(self, amount: int) -> AsyncIterator[None]:
        """Take `amount` while the block runs."""
        await self.take(amount)
        try:
            yield
        finally:
            self.give(amount)

    def charge(self, amount: int) -> None:
        """Take `amount` whether it fits or not: it is held already, only now known."""
        self._used += amount

    def give(self, amount: int) -> None:
        """Give `amount` back."""
        self._used -= amount
        self._given.set()
