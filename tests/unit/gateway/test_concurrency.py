"""Slots, budgets and groups of tasks."""

import asyncio

import pytest

from services.common.errors import IdError, OverloadedError
from services.common.tasks import together
from services.gateway.concurrency import Budget, Slots


async def test_results_come_in_order() -> None:
    async def after(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    assert await together([after(0.02), after(0.0), after(0.01)]) == [0.02, 0.0, 0.01]


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
        await together([wait(), fail()])
    assert ended.is_set()


def test_one_more_than_the_limit_is_refused_with_the_queue_named() -> None:
    slots = Slots("searches", 1)
    with slots.taken():
        with pytest.raises(OverloadedError) as refused, slots.taken():
            pass
        assert refused.value.metadata == {"queue": "searches", "limit": "1"}
    with slots.taken():
        pass


async def test_who_takes_more_than_is_left_waits() -> None:
    budget = Budget(10)
    await budget.take(6)
    taking = asyncio.create_task(budget.take(6))
    await asyncio.sleep(0.01)
    assert not taking.done()
    budget.give(6)
    await asyncio.wait_for(taking, 1)


async def test_an_amount_over_the_limit_goes_alone() -> None:
    budget = Budget(10)
    await asyncio.wait_for(budget.take(50), 1)
    taking = asyncio.create_task(budget.take(1))
    await asyncio.sleep(0.01)
    assert not taking.done()
    budget.give(50)
    await asyncio.wait_for(taking, 1)


async def test_the_small_do_not_overtake_the_large() -> None:
    budget = Budget(10)
    await budget.take(6)
    large = asyncio.create_task(budget.take(8))
    await asyncio.sleep(0)
    small = asyncio.create_task(budget.take(1))
    await asyncio.sleep(0.01)
    assert not small.done()
    budget.give(6)
    await asyncio.wait_for(asyncio.gather(large, small), 1)


async def test_what_is_charged_holds_others_back() -> None:
    budget = Budget(10)
    budget.charge(20)
    taking = asyncio.create_task(budget.take(1))
    await asyncio.sleep(0.01)
    assert not taking.done()
    budget.give(20)
    await asyncio.wait_for(taking, 1)
