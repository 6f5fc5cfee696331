"""Blocking work, off the event loop and bounded."""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E")


class Threads:
    """At most `number` threads; more work waits its turn. A context manager: leaving it waits for work under way."""

    def __init__(self, name: str, number: int) -> None:
        self._number = number
        self._executor = ThreadPoolExecutor(number, thread_name_prefix=name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await asyncio.to_thread(self._executor.shutdown)

    def each(self, work: Callable[[E], object], elements: Iterable[E]) -> None:
        """Do `work` on each of `elements`, from a thread that is none of these; raise the first error there was.

        Each thread has an equal share: handing over one by one costs more than a small piece of work does.
        """
        listed = list(elements)
        for _ in self._executor.map(
            partial(_all, work), [listed[first :: self._number] for first in range(self._number)]
        ):
            pass

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `work` returns. A caller that is cancelled does not stop work that has begun."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: work(*args, **kwargs))


def _all(work: Callable[[E], object], elements: Iterable[E]) -> None:
    for element in elements:
        work(element)
