"""Several coroutines at once."""

import asyncio

import pytest

from services.common.concurrency.tasks import background_tasks, gather, run_periodically
from services.common.errors import IdError
from tests.waiting import HANG_SECONDS


async def test_results_come_in_order() -> None:
    async def after(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    assert await gather([after(0.02), after(0.0), after(0.01)]) == [0.02, 0.0, 0.01]


async def test_the_first_error_is_raised_as_it_is_and_ends_the_others() -> None:
    ended = asyncio.Event()

    async def fail() -> None:
        raise IdError("", "is empty")

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    with pytest.raises(IdError):
        await gather([wait(), fail()])
    assert ended.is_set()


async def test_background_tasks_end_with_the_block() -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(name)

    async with background_tasks(work("a"), work("b")):
        await asyncio.sleep(0)
        assert ended == []
    assert sorted(ended) == ["a", "b"]


async def test_periodic_work_goes_on_after_errors_which_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    errors = [IdError("", "is empty"), ZeroDivisionError("by nothing")]
    done = asyncio.Event()

    async def work() -> None:
        if errors:
            raise errors.pop(0)
        done.set()

    async with background_tasks(run_periodically(work, 0.001, "tidying")), asyncio.timeout(HANG_SECONDS):
        await done.wait()
    assert [(record.levelname, record.exc_info is None) for record in caplog.records] == [
        ("WARNING", True),
        ("ERROR", False),
    ]
    assert all(record.getMessage().startswith("tidying failed") for record in caplog.records)
