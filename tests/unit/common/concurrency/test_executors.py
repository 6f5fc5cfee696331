import asyncio
import threading

import pytest

from services.common.concurrency.executors import BoundedExecutor, DeadlineExecutor
from services.common.deadlines import deadline_in, remaining_seconds
from services.common.errors import InvalidError, ServiceUnavailableError
from tests.waiting import HANG_SECONDS


async def test_results_come_in_order() -> None:
    async with BoundedExecutor("test", 3) as executor:
        doubled = await executor.run_each(lambda number: number * 2, range(50), chunk=4)
        assert doubled == [number * 2 for number in range(50)]
        assert await executor.run_each(lambda number: number * 2, [], chunk=4) == []


async def test_a_long_list_leaves_room_for_others() -> None:
    seen: list[str] = []
    gate = threading.Event()

    def work(name: str) -> None:
        gate.wait(HANG_SECONDS)
        seen.append(name)

    async with BoundedExecutor("test", 1) as executor:
        long = asyncio.create_task(executor.run_each(work, ["long"] * 20, chunk=1))
        await asyncio.sleep(0.01)
        short = asyncio.create_task(executor.run(work, "short"))
        await asyncio.sleep(0.01)
        gate.set()
        await short
        assert seen.count("long") < 5
        await long


async def test_a_cancelled_list_stops_early() -> None:
    seen: list[int] = []
    gate = threading.Event()

    def work(number: int) -> None:
        gate.wait(HANG_SECONDS)
        seen.append(number)

    async with BoundedExecutor("test", 1) as executor:
        task = asyncio.create_task(executor.run_each(work, range(20), chunk=1))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
    assert len(seen) <= 1


async def test_an_error_is_raised_as_it_is_and_ends_the_list() -> None:
    seen: list[int] = []

    def work(number: int) -> None:
        seen.append(number)
        raise InvalidError("no")

    async with BoundedExecutor("test", 2) as executor:
        with pytest.raises(InvalidError):
            await executor.run_each(work, range(100), chunk=1)
        await asyncio.sleep(0.01)
    assert len(seen) <= 4


async def test_the_event_loop_goes_on() -> None:
    gate = threading.Event()
    async with BoundedExecutor("test", 1) as executor:
        task = asyncio.create_task(executor.run(gate.wait, 5))
        await asyncio.sleep(0.01)
        gate.set()
        assert await task


async def test_at_the_end_what_runs_is_awaited_and_what_waits_is_dropped() -> None:
    began, gate = threading.Event(), threading.Event()
    seen: list[str] = []

    def work(name: str) -> None:
        began.set()
        gate.wait(HANG_SECONDS)
        seen.append(name)

    async with BoundedExecutor("test", 1) as executor:
        running, waiting = (asyncio.create_task(executor.run(work, name)) for name in ("running", "waiting"))
        await asyncio.to_thread(began.wait, 5)
        asyncio.get_running_loop().call_later(0.05, gate.set)
    await asyncio.wait([running, waiting])
    assert (seen, waiting.cancelled()) == (["running"], True)


async def test_every_thread_has_its_share_of_what_a_thread_blocks_on() -> None:
    both = threading.Barrier(2, timeout=5)
    seen: list[int] = []

    def work(number: int) -> None:
        both.wait()
        seen.append(number)

    async with BoundedExecutor("test", 2) as executor:
        await asyncio.to_thread(executor.block_on_each, work, range(6))
    assert sorted(seen) == list(range(6))


async def test_an_error_of_what_a_thread_blocks_on_is_raised() -> None:
    async with BoundedExecutor("test", 2) as executor:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(executor.block_on_each, lambda number: 1 // number, [1, 0, 1])


async def test_work_knows_how_long_its_caller_waits() -> None:
    async with DeadlineExecutor("test", 1, "object store", 20) as executor:
        assert await executor.run(remaining_seconds, 100) == pytest.approx(20, abs=1)
        assert await executor.run_within(60, remaining_seconds, 100) == pytest.approx(60, abs=1)
        with deadline_in(10):
            assert await executor.run(remaining_seconds, 100) == pytest.approx(9, abs=1)


async def test_a_caller_waits_no_longer_than_its_time_and_the_next_has_a_turn() -> None:
    gate = threading.Event()
    async with DeadlineExecutor("test", 1, "object store", 0.05) as executor:
        for _ in range(2):
            with pytest.raises(ServiceUnavailableError, match="object store"):
                await executor.run(gate.wait, 5)
        gate.set()
        assert await executor.run_within(5, lambda: "done") == "done"
