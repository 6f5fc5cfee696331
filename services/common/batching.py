"""Inputs of concurrent calls, run together."""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Generic, TypeVar

from services.common.deadlines import remaining_seconds
from services.common.detached import detached
from services.common.errors import DeadlineError

Key = TypeVar("Key", bound=Hashable)
Input = TypeVar("Input")
Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Input, Answer]):
    """An input that waits for its answer, until `moment` at most."""

    value: Input
    answer: asyncio.Future[Answer]
    moment: float


class Batches(Generic[Key, Input, Answer]):
    """Runs inputs of one key together, `most(key)` in a batch at most.

    Nothing waits for company: while fewer than `lanes` batches run, an input starts at once; what comes meanwhile makes
    the next batches, the key first whose turn is longest ago. Inputs whose call was cancelled, or is past its deadline,
    are left out.
    """

    def __init__(
        self,
        run: Callable[[Key, Sequence[Input]], Awaitable[Sequence[Answer | Exception]]],
        *,
        most: Callable[[Key], int],
        lanes: int,
    ) -> None:
        """`run` returns the answer to each input, or the error that its caller is to get."""
        self._run = run
        self._most = most
        self._free_lanes = lanes
        self._waiting: OrderedDict[Key, deque[_Waiting[Input, Answer]]] = OrderedDict()
        self._running: set[asyncio.Task[None]] = set()

    def submit(self, key: Key, *inputs: Input) -> Sequence[asyncio.Future[Answer]]:
        """Return the answers to come to `inputs`; cancel those that are no longer wanted."""
        loop = asyncio.get_running_loop()
        moment = time.monotonic() + remaining_seconds(inf)
        waiting = [_Waiting[Input, Answer](value, loop.create_future(), moment) for value in inputs]
        self._waiting.setdefault(key, deque()).extend(waiting)
        self._fill_lanes()
        return [each.answer for each in waiting]

    def _fill_lanes(self) -> None:
        while self._free_lanes and self._waiting:
            key, batch = self._next_batch()
            if batch:
                self._free_lanes -= 1
                task = detached(self._go(key, batch))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    def _next_batch(self) -> tuple[Key, list[_Waiting[Input, Answer]]]:
        key, queue = self._waiting.popitem(last=False)
        batch: list[_Waiting[Input, Answer]] = []
        most, now = self._most(key), time.monotonic()
        while queue and len(batch) < most:
            waiting = queue.popleft()
            if waiting.moment <= now:
                _settle(waiting, DeadlineError("the deadline passed before the work began"))
            elif not waiting.answer.done():
                batch.append(waiting)
        if queue:
            self._waiting[key] = queue
        return key, batch

    async def _go(self, key: Key, batch: Sequence[_Waiting[Input, Answer]]) -> None:
        try:
            answers = await self._run(key, [waiting.value for waiting in batch])
            for waiting, answer in zip(batch, answers, strict=True):
                _settle(waiting, answer)
        except asyncio.CancelledError:
            for waiting in batch:
                waiting.answer.cancel()
            raise
        except Exception as error:  # handed to every caller of the batch, each of which raises it
            for waiting in batch:
                _settle(waiting, error)
        finally:
            self._free_lanes += 1
            self._fill_lanes()


def _settle(waiting: _Waiting[Input, Answer], answer: Answer | Exception) -> None:
    if waiting.answer.done():
        return
    if isinstance(answer, Exception):
        waiting.answer.set_exception(answer)
    else:
        waiting.answer.set_result(answer)
