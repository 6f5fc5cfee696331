"""Limits on concurrent work: refuse what exceeds the limit, or let it wait."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from services.common.deadlines import remaining_seconds
from services.common.errors import DeadlineError, OverloadedError


class ConcurrencyLimiter:
    """Counts the work in progress, and refuses work that would exceed `limit`. Errors mention `name`."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._in_use = 0

    @contextmanager
    def admit(self, count: int = 1) -> Iterator[None]:
        """Count `count` units of work while the block runs.

        Raises:
            OverloadedError: the limit would be exceeded.
            DeadlineError: the caller's deadline has passed.
        """
        if remaining_seconds(1.0) <= 0:
            raise DeadlineError("the deadline passed before the work began", service=self._name)
        if self._in_use + count > self._limit:
            problem = f"{self._name}: {self._in_use} in progress, {count} more would exceed {self._limit}"
            raise OverloadedError(problem, queue=self._name, limit=str(self._limit))
        self._in_use += count
        try:
            yield
        finally:
            self._in_use -= count


class WeightedSemaphore:
    """A semaphore for amounts, such as bytes; waiters are served in order."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_use = 0
        self._turn = asyncio.Lock()
        self._released = asyncio.Event()

    async def acquire(self, amount: int) -> None:
        """Wait until `amount` fits, or until nothing else is in use, if it exceeds the limit by itself."""
        async with self._turn:
            while self._in_use and self._in_use + amount > self._limit:
                self._released.clear()
                await self._released.wait()
            self._in_use += amount

    def force_acquire(self, amount: int) -> None:
        """Acquire `amount` without waiting, even above the limit; for amounts that are known only once in use."""
        self._in_use += amount

    def release(self, amount: int) -> None:
        """Release `amount`."""
        self._in_use -= amount
        self._released.set()

    @asynccontextmanager
    async def reserve(self, amount: int) -> AsyncIterator[None]:
        """Acquire `amount`, and release it after the block."""
        await self.acquire(amount)
        try:
            yield
        finally:
            self.release(amount)
