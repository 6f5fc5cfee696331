"""Builds that go on behind the searches: one thread for the whole process, a step of each at a time."""

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
"""A build, step by step. What it yields are the seconds that it wants to wait before its next step."""


class BuildScheduler:
    """Takes builds forward in turns, so that a long one holds up no short one, and any can be stopped after a step."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Build]] = []
        self._running: Build | None = None
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._closing = False

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Build while the block runs; afterwards nothing does, once the step under way is done."""
        thread = threading.Thread(target=self._work, name="build")
        thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._closing = True
                self._changed.notify()
            await asyncio.to_thread(thread.join)

    def start(self, build: Build) -> None:
        """Let `build` go on until it ends."""
        with self._changed:
            self._wait(build, 0)

    def stop(self, build: Build) -> None:
        """Let `build` take no other step, and close it; one that has ended is passed over."""
        with self._changed:
            if self._running is build:
                self._running = None
                return
            self._waiting = [entry for entry in self._waiting if entry[2] is not build]
            heapq.heapify(self._waiting)
        build.close()

    def step(self) -> float | None:
        """Take the build that is due a step forward; return the seconds until one is due, None if none is left."""
        with self._changed:
            delay = self._delay()
            if delay != 0:
                return delay
            self._running = build = heapq.heappop(self._waiting)[2]
        delay = _stepped(build)
        with self._changed:
            stopped, self._running = self._running is None, None
            if delay is not None and not stopped:
                self._wait(build, delay)
        if stopped:
            build.close()
        return 0.0

    def _work(self) -> None:
        while not self._closing:
            self.step()
            with self._changed:
                delay = self._delay()
                if delay != 0 and not self._closing:
                    self._changed.wait(delay)
        for _, _, build in self._waiting:
            build.close()

    def _wait(self, build: Build, delay: float) -> None:
        heapq.heappush(self._waiting, (time.monotonic() + delay, next(self._numbers), build))
        self._changed.notify()

    def _delay(self) -> float | None:
        """Return the seconds until a build is due, None if there is none."""
        return max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None


def _stepped(build: Build) -> float | None:
    """Take `build` a step forward; return the seconds it wants to wait, None at its end."""
    try:
        return next(build)
    except StopIteration:
        return None
    except Exception:
        log.exception("a build failed")
        return None
