"""Builds take turns, wait as long as they want, and stop when told."""

import asyncio
import threading

from services.search.ann.build_scheduler import Build, BuildScheduler


class Recorded:
    """A build of some steps that writes down what becomes of it."""

    def __init__(self, name: str, steps: int, log: list[str], delay: float = 0.0) -> None:
        self.name, self.steps, self.log, self.delay = name, steps, log, delay

    def run(self) -> Build:
        try:
            for step in range(self.steps):
                self.log.append(f"{self.name}{step}")
                yield self.delay
            self.log.append(f"{self.name} done")
        finally:
            self.log.append(f"{self.name} closed")


def run_out(scheduler: BuildScheduler) -> None:
    while scheduler.step() is not None:
        pass


def test_builds_take_turns() -> None:
    log: list[str] = []
    scheduler = BuildScheduler()
    scheduler.start(Recorded("long", 3, log).run())
    scheduler.start(Recorded("short", 1, log).run())
    run_out(scheduler)
    assert log == ["long0", "short0", "long1", "short done", "short closed", "long2", "long done", "long closed"]


def test_a_stopped_build_is_closed_and_takes_no_step() -> None:
    log: list[str] = []
    scheduler = BuildScheduler()
    build = Recorded("a", 9, log).run()
    scheduler.start(build)
    scheduler.step()
    scheduler.stop(build)
    assert scheduler.step() is None
    assert log == ["a0", "a closed"]
    scheduler.stop(build)


def test_a_build_that_stops_itself_ends_with_its_step() -> None:
    log: list[str] = []
    scheduler = BuildScheduler()

    def stopping() -> Build:
        try:
            log.append("stops")
            scheduler.stop(build)
            yield 0.0
            log.append("goes on")
        finally:
            log.append("closed")

    build = stopping()
    scheduler.start(build)
    run_out(scheduler)
    assert log == ["stops", "closed"]


def test_one_that_fails_does_not_take_the_others_along() -> None:
    log: list[str] = []
    scheduler = BuildScheduler()

    def failing() -> Build:
        yield 0.0
        raise RuntimeError("no memory")

    scheduler.start(failing())
    scheduler.start(Recorded("a", 2, log).run())
    run_out(scheduler)
    assert "a done" in log


def test_one_that_waits_lets_others_go_on() -> None:
    log: list[str] = []
    scheduler = BuildScheduler()
    scheduler.start(Recorded("slow", 2, log, delay=0.05).run())
    scheduler.start(Recorded("quick", 3, log).run())
    run_out(scheduler)
    assert log.index("quick done") < log.index("slow1")
    assert log[-1] == "slow closed"


async def test_a_thread_builds_until_the_block_ends() -> None:
    scheduler, done, log = BuildScheduler(), threading.Event(), list[str]()

    def build() -> Build:
        yield 0.01
        done.set()
        yield 0.0

    async with scheduler.running():
        scheduler.start(Recorded("endless", 10**9, log, delay=0.001).run())
        scheduler.start(build())
        assert await asyncio.to_thread(done.wait, 5)
    assert log[-1] == "endless closed"
    assert not [thread for thread in threading.enumerate() if thread.name == "build"]
