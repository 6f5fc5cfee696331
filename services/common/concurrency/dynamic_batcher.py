"""Dynamic batching: inputs of concurrent calls run together in batches."""

import asyncio
import contextvars
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Generic, TypeVar

from services.common.deadlines import remaining_seconds, set_deadline
from services.common.errors import DeadlineError

Key = TypeVar("Key", bound=Hashable)
Input = TypeVar("Input")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """The maximum size of a batch, and the maximum number of batches in flight."""

    max_batch: int
    max_in_flight: int


@dataclass(slots=True, eq=False)
class _Pending(Generic[Input, Result]):
    """An input that waits for its result, until `deadline` on the monotonic clock."""

    value: Input
    result: asyncio.Future[Result]
    deadline: float


_Running = asyncio.Future[Sequence[Result | Exception]]


class DynamicBatcher(Generic[Key, Input, Result]):
    """Runs inputs of the same key together, in batches whose number and size `policy` limits.

    There is no batching delay: while fewer batches than `max_in_flight` run, an input starts immediately. Inputs that
    arrive later form the next batches, keys in turn. Inputs of calls that are cancelled or past their deadline are
    dropped.
    """

    def __init__(
        self,
        start: Callable[[Key, Sequence[Input]], _Running[Result]],
        policy: Callable[[Key], BatchPolicy],
        *,
        cancel_abandoned: bool,
    ) -> None:
        """`start` starts a batch and returns a future of one result, or one caller's error, per input.

        It runs under the latest of its callers' deadlines. `cancel_abandoned` cancels a batch once all of its callers
        are cancelled; do not use it for work in threads, which cancelling does not stop.
        """
        self._start = start
        self._policy = policy
        self._cancel_abandoned = cancel_abandoned
        self._pending: OrderedDict[Key, deque[_Pending[Input, Result]]] = OrderedDict()
        self._running: set[_Running[Result]] = set()

    async def run(self, key: Key, inputs: Sequence[Input]) -> list[Result]:
        """Return the results of `inputs`, in order; cancelling the call drops the inputs that have not started.

        Raises the error of an input, and:
            DeadlineError: the caller's deadline passed before all inputs started.
        """
        results = self.submit(key, *inputs)
        try:
            return await asyncio.gather(*results)
        finally:
            for result in results:
                result.cancel()

    def submit(self, key: Key, *inputs: Input) -> Sequence[asyncio.Future[Result]]:
        """Return futures of the results of `inputs`; cancel those that are no longer needed."""
        loop = asyncio.get_running_loop()
        deadline = time.monotonic() + remaining_seconds(inf)
        pending = [_Pending[Input, Result](value, loop.create_future(), deadline) for value in inputs]
        self._pending.setdefault(key, deque()).extend(pending)
        self._start_batches()
        return [each.result for each in pending]

    def _start_batches(self) -> None:
        while self._pending:
            key = next(iter(self._pending))
            policy = self._policy(key)
            if len(self._running) >= policy.max_in_flight:
                return
            if batch := self._next_batch(key, policy.max_batch):
                self._start_batch(key, batch)

    def _next_batch(self, key: Key, max_batch: int) -> list[_Pending[Input, Result]]:
        queue = self._pending.pop(key)
        batch: list[_Pending[Input, Result]] = []
        now = time.monotonic()
        while queue and len(batch) < max_batch:
            pending = queue.popleft()
            if pending.deadline <= now:
                _resolve(pending, DeadlineError("the deadline passed before the work began"))
            elif not pending.result.done():
                batch.append(pending)
        if queue:
            self._pending[key] = queue
        return batch

    def _start_batch(self, key: Key, batch: Sequence[_Pending[Input, Result]]) -> None:
        seconds = max(pending.deadline for pending in batch) - time.monotonic()
        context = contextvars.copy_context()
        context.run(set_deadline, None if seconds == inf else seconds)
        running = context.run(self._start, key, [pending.value for pending in batch])
        self._running.add(running)
        running.add_done_callback(partial(self._end, batch))
        if self._cancel_abandoned:
            for pending in batch:
                pending.result.add_done_callback(partial(_cancel_if_abandoned, running, batch))

    def _end(self, batch: Sequence[_Pending[Input, Result]], done: _Running[Result]) -> None:
        self._running.discard(done)
        failed = asyncio.CancelledError() if done.cancelled() else done.exception()
        results = done.result() if failed is None else [failed] * len(batch)
        for pending, result in zip(batch, results, strict=True):
            _resolve(pending, result)
        self._start_batches()


def _cancel_if_abandoned(
    running: _Running[Result], batch: Sequence[_Pending[Input, Result]], _: asyncio.Future[Result]
) -> None:
    if all(pending.result.cancelled() for pending in batch):
        running.cancel()


def _resolve(pending: _Pending[Input, Result], result: Result | BaseException) -> None:
    if pending.result.done():
        return
    if isinstance(result, asyncio.CancelledError):
        pending.result.cancel()
    elif isinstance(result, BaseException):
        pending.result.set_exception(result)
    else:
        pending.result.set_result(result)
