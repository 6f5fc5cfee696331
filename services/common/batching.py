"""Inputs of concurrent calls, run together."""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Generic, TypeVar

from services.common.deadlines import remaining_seconds
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
        start: Callable[[Key, Sequence[Input]], asyncio.Future[Sequence[Answer | Exception]]],
        *,
        most: Callable[[Key], int],
        lanes: int,
    ) -> None:
        """`start` begins a batch; what it returns will hold the answer to each input, or its caller's error."""
        self._start = start
        self._most = most
        self._free_lanes = lanes
        self._waiting: OrderedDict[Key, deque[_Waiting[Input, Answer]]] = OrderedDict()
        self._running: set[asyncio.Future[Sequence[Answer | Exception]]] = set()

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
                running = self._start(key, [waiting.value for waiting in batch])
                self._running.add(running)
                running.add_done_callback(partial(self._end, batch))

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

    def _end(
        self, batch: Sequence[_Waiting[Input, Answer]], done: asyncio.Future[Sequence[Answer | Exception]]
    ) -> None:
        self._running.discard(done)
        self._free_lanes += 1
        failed = asyncio.CancelledError() if done.cancelled() else done.exception()
        answers = done.result() if failed is None else [failed] * len(batch)
        for waiting, answer in zip(batch, answers, strict=True):
            _settle(waiting, answer)
        self._fill_lanes()


def _settle(waiting: _Waiting[Input, Answer], answer: Answer | BaseException) -> None:
    if waiting.answer.done():
        return
    if isinstance(answer, asyncio.CancelledError):
        waiting.answer.cancel()
    elif isinstance(answer, BaseException):
        waiting.answer.set_exception(answer)
    else:
        waiting.answer.set_result(answer)
