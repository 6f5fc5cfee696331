import asyncio
import threading

import pytest

from services.common.errors import InvalidError
from services.embedder.workers import Workers


async def test_results_come_in_order() -> None:
    async with Workers(3) as workers:
        assert await workers.map(lambda number: number * 2, range(50), 4) == [number * 2 for number in range(50)]
        assert await workers.map(lambda number: number * 2, [], 4) == []


async def test_a_long_list_leaves_room_for_others() -> None:
    seen: list[str] = []
    gate = threading.Event()

    def work(name: str) -> None:
        gate.wait(5)
        seen.append(name)

    async with Workers(1) as workers:
        long = asyncio.create_task(workers.map(work, ["long"] * 20, 1))
        await asyncio.sleep(0.01)
        short = asyncio.create_task(workers.run(work, "short"))
        await asyncio.sleep(0.01)
        gate.set()
        await short
        assert seen.count("long") < 5
        await long


async def test_a_cancelled_list_stops_early() -> None:
    seen: list[int] = []
    gate = threading.Event()

    def work(number: int) -> None:
        gate.wait(5)
        seen.append(number)

    async with Workers(1) as workers:
        task = asyncio.create_task(workers.map(work, range(20), 1))
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

    async with Workers(2) as workers:
        with pytest.raises(InvalidError):
            await workers.map(work, range(100), 1)
        await asyncio.sleep(0.01)
    assert len(seen) <= 4


async def test_the_event_loop_goes_on() -> None:
    gate = threading.Event()
    async with Workers(1) as workers:
        task = asyncio.create_task(workers.run(gate.wait, 5))
        await asyncio.sleep(0.01)
        gate.set()
        assert await task
