"""Threads for the work that would hold up the event loop."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """A fixed number of threads, shared fairly: however long a call's list, so many pieces of it wait at a time.

    An async context manager: at its end it waits for what runs and drops what waits.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="embedder")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    async def run(self, work: Callable[..., R], *arguments: object) -> R:
        """Return `work(*arguments)`. If the caller is cancelled before it began, it never does."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    async def map(self, work: Callable[[T], R], elements: Sequence[T], together: int) -> list[R]:
        """Return `work` of each element, in order; `together` of them make one piece."""
        pieces = [elements[start : start + together] for start in range(0, len(elements), together)]
        if len(pieces) == 1:
            return await self.run(_each, work, pieces[0])
        results: list[list[R]] = [[] for _ in pieces]
        waiting = iter(enumerate(pieces))

        async def drain() -> None:
            for index, piece in waiting:
                results[index] = await self.run(_each, work, piece)

        drains = [asyncio.ensure_future(drain()) for _ in range(min(self.threads, len(pieces)))]
        try:
            await asyncio.gather(*drains)
        finally:
            for unfinished in drains:
                unfinished.cancel()
        return [result for piece in results for result in piece]


def _each(work: Callable[[T], R], elements: Sequence[T]) -> list[R]:
    return [work(element) for element in elements]
