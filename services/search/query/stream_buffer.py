"""Vectors on their way in: read while others are searched for, no further ahead than there is use for."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np

from services.common.concurrency.tasks import background_tasks
from services.common.errors import DeadlineError
from services.common.vectors import Matrix

TIMEOUT_SECONDS = 60.0
"""How long a caller may be silent in the middle of a stream: it holds a place that others wait for."""


class StreamBuffer:
    """What has arrived from a stream of matrices, as one row of rows. Use `open_buffer`."""

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead
        self._waiting: deque[Matrix] = deque()
        self._count = 0
        self._ended = False
        self._error: Exception | None = None
        self._changed = asyncio.Condition()

    async def take(self, at_most: int, at_least: int = 1) -> Matrix | None:
        """Return the next rows, `at_least` many unless the stream ends before; None after the last.

        Raises what the stream raised, as soon as it did, and:
            DeadlineError: nothing came for `TIMEOUT_SECONDS`.
        """
        async with self._changed:
            await self._wait_until(lambda: self._ended or self._count >= at_least)
            if self._error:
                raise self._error
            self._changed.notify_all()
            return self._pop(at_most) if self._count else None

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition`, as long as anything comes now and then."""
        while not condition():
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    await self._changed.wait()
            except TimeoutError as error:
                raise DeadlineError(f"no vectors came for {TIMEOUT_SECONDS:g} s", service="search") from error

    async def read(self, source: AsyncIterator[Matrix]) -> None:
        """Read `source` to its end."""
        try:
            async for vectors in source:
                async with self._changed:
                    await self._changed.wait_for(lambda: self._count < self._ahead)
                    self._waiting.append(vectors)
                    self._count += len(vectors)
                    self._changed.notify_all()
        except Exception as error:  # raised where the vectors are taken
            self._error = error
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _pop(self, at_most: int) -> Matrix:
        parts: list[Matrix] = []
        while self._waiting and at_most:
            part, rest = np.split(self._waiting.popleft(), [at_most])
            at_most -= len(part)
            parts.append(part)
            if len(rest):
                self._waiting.appendleft(rest)
        rows = np.concatenate(parts)
        self._count -= len(rows)
        return rows


@asynccontextmanager
async def open_buffer(source: AsyncIterator[Matrix], ahead: int) -> AsyncIterator[StreamBuffer]:
    """Read `source` while the block runs, not further when `ahead` rows wait."""
    buffer = StreamBuffer(ahead)
    async with background_tasks(buffer.read(source)):
        yield buffer
