"""Elements of concurrent calls, sent together, no longer than somebody waits for them."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import numpy as np

from services.common.deadlines import remaining_seconds
from services.common.detached import detached
from services.common.errors import DeadlineError
from services.common.vectors import Matrix

E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Width:
    """How many elements go together, and how many requests are under way at a time."""

    together: int
    lanes: int


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[E]):
    """An element that waits for its vector, until `deadline` on the monotonic clock."""

    element: E
    vector: asyncio.Future[Matrix]
    deadline: float


class Batches(Generic[E]):
    """Sends elements in batches by `send`, which is given a batch and the seconds its most patient caller has left.

    Nothing waits for company: while a lane is free, elements leave at once; what comes meanwhile makes the next batch.
    A request is given up once the last of its callers has left, or its deadline has passed.
    """

    def __init__(
        self, send: Callable[[Sequence[E], float], Awaitable[Matrix]], width: Callable[[], Width], most_seconds: float
    ) -> None:
        self._send = send
        self._width = width
        self._most_seconds = most_seconds
        self._waiting: deque[_Waiting[E]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def encode(self, elements: Sequence[E]) -> list[Matrix]:
        """Return the vector of each element, in order.

        Raises:
            DeadlineError: the caller's time was up first.
        """
        seconds = remaining_seconds(self._most_seconds)
        loop, deadline = asyncio.get_running_loop(), time.monotonic() + seconds
        waiting = [_Waiting(element, loop.create_future(), deadline) for element in elements]
        self._waiting.extend(waiting)
        self._fill_lanes()
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.gather(*(each.vector for each in waiting))
        except TimeoutError as error:
            raise DeadlineError("Triton did not answer in time", service="triton") from error
        finally:
            for each in waiting:
                each.vector.cancel()

    def _fill_lanes(self) -> None:
        width = self._width()
        while len(self._running) < width.lanes and (batch := self._next_batch(width.together)):
            task = detached(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._landed)
            for each in batch:
                each.vector.add_done_callback(partial(_give_up, task, batch))

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._fill_lanes()

    def _next_batch(self, together: int) -> list[_Waiting[E]]:
        batch: list[_Waiting[E]] = []
        while self._waiting and len(batch) < together:
            each = self._waiting.popleft()
            if not each.vector.done():
                batch.append(each)
        return batch

    async def _run(self, batch: list[_Waiting[E]]) -> None:
        seconds = max(each.deadline for each in batch) - time.monotonic()
        try:
            vectors = await self._send([each.element for each in batch], seconds)
        except Exception as error:  # handed to every caller of the batch, each of which raises it
            _refuse(batch, error)
        else:
            for each, vector in zip(batch, np.array(vectors), strict=True):
                if not each.vector.done():
                    each.vector.set_result(vector)


def _give_up(task: asyncio.Task[None], batch: Sequence[_Waiting[E]], _: object) -> None:
    if all(each.vector.cancelled() for each in batch):
        task.cancel()


def _refuse(batch: Sequence[_Waiting[E]], error: Exception) -> None:
    for each in batch:
        if not each.vector.done():
            each.vector.set_exception(error)
