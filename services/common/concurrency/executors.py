"""Blocking work off the event loop, in a bounded number of threads."""

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
"""Share of the caller's time that blocking work has, so that the caller still hears what went wrong."""


class BoundedExecutor(ThreadPoolExecutor):
    """`threads` threads; more work waits its turn.

    An async context manager: at its end it waits for the work in progress, and drops what has not begun.
    """

    def __init__(self, name: str, threads: int) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self.threads = threads

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.shutdown, wait=True, cancel_futures=True)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `work` returns. If the caller is cancelled, work that has begun goes on, other never begins."""
        return await asyncio.get_running_loop().run_in_executor(self, partial(work, *args, **kwargs))

    async def run_each(self, work: Callable[[T], R], elements: Sequence[T], *, chunk: int) -> list[R]:
        """Return `work` of each element, in order; `chunk` of them are one piece of work.

        No more pieces wait at a time than there are threads, however long the list: other callers get their turn.
        """
        pieces = [elements[start : start + chunk] for start in range(0, len(elements), chunk)]
        if len(pieces) == 1:
            return await self.run(_apply_each, work, pieces[0])
        results: list[list[R]] = [[] for _ in pieces]
        waiting = iter(enumerate(pieces))

        async def drain() -> None:
            for place, piece in waiting:
                results[place] = await self.run(_apply_each, work, piece)

        drains = [asyncio.ensure_future(drain()) for _ in range(min(self.threads, len(pieces)))]
        try:
            await asyncio.gather(*drains)
        finally:
            for unfinished in drains:
                unfinished.cancel()
        return [result for each in results for result in each]

    def block_on_each(self, work: Callable[[T], object], elements: Iterable[T]) -> None:
        """Do `work` on each of `elements`, called in a thread that is none of these; raise its first error.

        Each thread has an equal share: handing over one by one costs more than a small piece of work does.
        """
        listed = list(elements)
        shares = [listed[first :: self.threads] for first in range(self.threads)]
        for _ in self.map(partial(_apply_each, work), shares):
            pass


class DeadlineExecutor(BoundedExecutor):
    """Calls of `service` over a network, whose callers wait at most `timeout_seconds`, or most of their deadline."""

    def __init__(self, name: str, threads: int, service: str, timeout_seconds: float) -> None:
        super().__init__(name, threads)
        self._service = service
        self._timeout_seconds = timeout_seconds

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `work` returns; inside, `remaining_seconds` is the time it has.

        Raises:
            ServiceUnavailableError: the time is up; work that has begun goes on until it notices.
        """
        return await self.run_within(self._timeout_seconds, work, *args, **kwargs)

    async def run_within(self, seconds: float, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `work` returns, as `run` does, but wait for at most `seconds`."""
        seconds = min(seconds, CALLER_SHARE * remaining_seconds(seconds / CALLER_SHARE))
        until = time.monotonic() + seconds

        def bounded() -> T:
            if time.monotonic() >= until:
                raise ServiceUnavailableError(self._service, "had no turn to answer in time")
            with deadline_in(until - time.monotonic()):
                return work(*args, **kwargs)

        waiting = asyncio.ensure_future(super().run(bounded))
        done, _ = await asyncio.wait([waiting], timeout=seconds)
        if done:
            return waiting.result()
        waiting.add_done_callback(consume_exception)
        raise ServiceUnavailableError(self._service, f"did not answer within {seconds:.1f} s")


def consume_exception(future: "asyncio.Future[T]") -> None:
    """Retrieve the error of a `future` that nobody may await any more, so that asyncio does not log it."""
    if not future.cancelled():
        future.exception()


def _apply_each(work: Callable[[T], R], elements: Sequence[T]) -> list[R]:
    return [work(element) for element in elements]
