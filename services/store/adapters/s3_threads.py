"""Blocking work over a network, off the event loop and bounded in number and in time."""

import asyncio
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from services.common.deadlines import deadline_in, remaining_seconds
from services.common.errors import ServiceUnavailableError
from services.store.adapters.threads import Threads

P = ParamSpec("P")
T = TypeVar("T")

SHARE = 0.9  # of the caller's time, so that the caller hears what went wrong


class PatientThreads(Threads):
    """`Threads` whose callers wait for at most `patience_seconds`, or most of their own deadline if that is earlier."""

    def __init__(self, name: str, number: int, patience_seconds: float) -> None:
        super().__init__(name, number)
        self._patience_seconds = patience_seconds

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `work` returns; inside, `remaining_seconds` is the time it has.

        Raises:
            ServiceUnavailableError: the time is up; work that has begun goes on until it notices.
        """
        return await self.run_within(self._patience_seconds, work, *args, **kwargs)

    async def run_within(self, patience_seconds: float, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `work` returns, as `run` does, but wait for at most `patience_seconds`."""
        seconds = min(patience_seconds, SHARE * remaining_seconds(patience_seconds / SHARE))
        until = time.monotonic() + seconds

        def bounded() -> T:
            if time.monotonic() >= until:
                raise ServiceUnavailableError("object store", "had no turn to answer in time")
            with deadline_in(until - time.monotonic()):
                return work(*args, **kwargs)

        waiting = asyncio.ensure_future(super().run(bounded))
        done, _ = await asyncio.wait([waiting], timeout=seconds)
        if done:
            return waiting.result()
        waiting.add_done_callback(looked_at)
        raise ServiceUnavailableError("object store", f"did not answer within {seconds:.1f} s")


def looked_at(waiting: "asyncio.Future[T]") -> None:
    """Look at what became of work that nobody may wait for any more, so that nobody complains about that."""
    if not waiting.cancelled():
        waiting.exception()
