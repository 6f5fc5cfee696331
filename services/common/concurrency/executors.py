"""Thread pools for blocking work outside the event loop."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, Self, TypeVar

from services.common.deadlines import deadline_in, remaining_seconds
from services.common.errors import ServiceUnavailableError

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

CALLER_SHARE = 0.9
"""Share of the caller's remaining time for blocking work; the rest is for returning its error."""


class BoundedExecutor(ThreadPoolExecutor):
    """A pool of `threads` threads; further work is queued.

    An async context manager: at its end it waits for the work in progress and drops queued work.
    """

    def __init__(self, name: str, threads: int) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self.threads = threads

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.shutdown, wait=True, cancel_futures=True)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in a thread and return its result. If the caller is cancelled, running work continues."""
        return await asyncio.get_running_loop().run_in_executor(self, partial(work, *args, **kwargs))

    async def run_each(self, work: Callable[[T], R], elements: Sequence[T], *, chunk: int) -> list[R]:
        """Return `work(element)` of each element, in order; `chunk` elements are one task.

        At most as many tasks as threads are queued at a time, so that other callers are not blocked by a long list.
        """
        chunks = [elements[start : start + chunk] for start in range(0, len(elements), chunk)]
        if len(chunks) == 1:
            return await self.run(_apply_each, work, chunks[0])
        results: list[list[R]] = [[] for _ in chunks]
        waiting = iter(enumerate(chunks))

        async def drain() -> None:
            for index, part in waiting:
                results[index] = await self.run(_apply_each, work, part)

        drains = [asyncio.ensure_future(drain()) for _ in range(min(self.threads, len(chunks)))]
        try:
            await asyncio.gather(*drains)
        finally:
            for unfinished in drains:
                unfinished.cancel()
        return [result for each in results for result in each]

    def block_on_each(self, work: Callable[[T], object], elements: Iterable[T]) -> None:
        """Call `work` on each of `elements` and wait; raise the first error. Call it from outside the pool's threads.

        Each thread has an equal share, because handing over elements one by one costs more than small work does.
        """
        listed = list(elements)
        shares = [listed[first :: self.threads] for first in range(self.threads)]
        for _ in self.map(partial(_apply_each, work), shares):
            pass


class DeadlineExecutor(BoundedExecutor):
    """Threads for calls to `service`, limited to `timeout_seconds` and to most of the caller's deadline."""

    def __init__(self, name: str, threads: int, service: str, timeout_seconds: float) -> None:
        super().__init__(name, threads)
        self._service = service
        self._timeout_seconds = timeout_seconds

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` and return its result; inside it, `remaining_seconds` is the time it has.

        Raises:
            ServiceUnavailableError: the time is up; running work continues until it checks its deadline.
        """
        return await self.run_within(self._timeout_seconds, work, *args, **kwargs)

    async def run_within(self, seconds: float, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do as `run` does, with a timeout of `seconds`."""
        seconds = min(seconds, CALLER_SHARE * remaining_seconds(seconds / CALLER_SHARE))
        until = time.monotonic() + seconds

        def bounded() -> T:
            if time.monotonic() >= until:
                raise ServiceUnavailableError(self._service, "was not called in time: all threads are busy")
            with deadline_in(until - time.monotonic()):
                return work(*args, **kwargs)

        waiting = asyncio.ensure_future(super().run(bounded))
        done, _ = await asyncio.wait([waiting], timeout=seconds)
        if done:
            return waiting.result()
        waiting.add_done_callback(consume_exception)
        raise ServiceUnavailableError(self._service, f"did not answer within {seconds:.1f} s")


def consume_exception(future: "asyncio.Future[T]") -> None:
    """Retrieve the error of a `future` that is no longer awaited, so that asyncio does not log it."""
    if not future.cancelled():
        future.exception()


def _apply_each(work: Callable[[T], R], elements: Sequence[T]) -> list[R]:
    return [work(element) for element in elements]
