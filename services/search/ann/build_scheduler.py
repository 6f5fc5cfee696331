"""Builds indexes in the background: one thread for the whole process runs one step of a build at a time."""

import asyncio
import heapq
import itertools
import logging
import threading
import time
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager

log = logging.getLogger(__name__)

Build = Generator[float, None, None]
"""A build, step by step. It yields the seconds to wait before its next step."""


class BuildScheduler:
    """Runs builds in turns, so that a long one does not hold up short ones and each can be stopped after a step."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Build]] = []
        self._running: Build | None = None
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._closing = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run builds while the block runs; on exit, wait for the current step and stop."""
        thread = threading.Thread(target=self._run, name="build")
        thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._closing = True
                self._changed.notify()
            await asyncio.to_thread(thread.join)

    def start(self, build: Build) -> None:
        """Run `build` to its end."""
        with self._changed:
            self._enqueue(build, 0)

    def stop(self, build: Build) -> None:
        """Run no further step of `build` and close it; does nothing if it has ended."""
        with self._changed:
            if self._running is build:
                self._running = None
                return
            self._waiting = [entry for entry in self._waiting if entry[2] is not build]
            heapq.heapify(self._waiting)
        build.close()

    def step(self) -> float | None:
        """Run a step of the build that is due; return the seconds until one is due, None if none is left."""
        with self._changed:
            delay = self._delay()
            if delay != 0:
                return delay
            self._running = build = heapq.heappop(self._waiting)[2]
        delay = _step(build)
        with self._changed:
            stopped, self._running = self._running is None, None
            if delay is not None and not stopped:
                self._enqueue(build, delay)
        if stopped:
            build.close()
        return 0.0

    def _run(self) -> None:
        while not self._closing:
            self.step()
            with self._changed:
                delay = self._delay()
                if delay != 0 and not self._closing:
                    self._changed.wait(delay)
        for _, _, build in self._waiting:
            build.close()

    def _enqueue(self, build: Build, delay: float) -> None:
        heapq.heappush(self._waiting, (time.monotonic() + delay, next(self._numbers), build))
        self._changed.notify()

    def _delay(self) -> float | None:
        """Return the seconds until a build is due, None if there is none."""
        return max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None


def _step(build: Build) -> float | None:
    """Run a step of `build`; return the seconds to wait before the next, None at its end."""
    try:
        return next(build)
    except StopIteration:
        return None
    except Exception:
        log.exception("a build failed")
        return None
