"""Waiting for what must come, however busy the machine is."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

HANG_SECONDS = 120.0
"""What takes longer hangs: a bound on waits for what must come, never a claim about how soon."""

POLL_SECONDS = 0.02

T = TypeVar("T")
E = TypeVar("E", bound=Exception)


def wait_until(condition: Callable[[], object]) -> None:
    """Return once `condition` is true."""
    until = time.monotonic() + HANG_SECONDS
    while not condition():
        assert time.monotonic() < until, "what the test waits for does not come"
        time.sleep(POLL_SECONDS)


async def until(condition: Callable[[], object]) -> None:
    """Return once `condition` is true, other tasks going on meanwhile."""
    async with asyncio.timeout(HANG_SECONDS):
        while not condition():  # noqa: ASYNC110  # what is waited for sets no event
            await asyncio.sleep(POLL_SECONDS)


async def until_raises(kind: type[E], work: Callable[[], Awaitable[object]]) -> E:
    """Do `work` again and again until it raises `kind`; return that."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            try:
                await work()
            except kind as error:
                return error
            await asyncio.sleep(POLL_SECONDS)


async def until_works(work: Callable[[], Awaitable[T]], *failures: type[Exception]) -> T:
    """Do `work` again and again until it raises none of `failures`; return what it returns."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            try:
                return await work()
            except failures:
                await asyncio.sleep(POLL_SECONDS)


class LoopClock:
    """The clock of the running event loop, put forward by a test instead of waiting."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._ahead = 0.0
        self._loop.time = lambda: self._time() + self._ahead  # type: ignore[method-assign]  # timers ask the loop

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass, and what is due by then happen."""
        self._ahead += seconds
        await asyncio.sleep(0)  # the loop makes a turn, in which it begins what is due
        await asyncio.sleep(0)
