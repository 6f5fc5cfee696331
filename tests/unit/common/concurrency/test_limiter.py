"""Limits: what is over them is refused, or waits."""

import asyncio

import pytest

from services.common.concurrency.limiter import ConcurrencyLimiter, WeightedSemaphore
from services.common.deadlines import deadline_in
from services.common.errors import DeadlineError, OverloadedError
from tests.waiting import HANG_SECONDS


def test_what_is_over_the_limit_is_refused_with_the_limit() -> None:
    limiter = ConcurrencyLimiter("embedder", 10)
    with limiter.admit(6), limiter.admit(4):
        with pytest.raises(OverloadedError) as caught, limiter.admit():
            pass
        assert caught.value.reason == "OVERLOADED"
        assert caught.value.metadata == {"queue": "embedder", "limit": "10"}
    with limiter.admit(10):
        pass


def test_an_error_gives_the_place_back() -> None:
    limiter = ConcurrencyLimiter("embedder", 1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), limiter.admit():
            raise ZeroDivisionError


def test_nothing_begins_after_the_deadline() -> None:
    with deadline_in(0), pytest.raises(DeadlineError), ConcurrencyLimiter("embedder", 1).admit():
        pass


async def test_who_acquires_more_than_is_left_waits() -> None:
    semaphore = WeightedSemaphore(10)
    await semaphore.acquire(6)
    acquiring = asyncio.create_task(semaphore.acquire(6))
    await asyncio.sleep(0.01)
    assert not acquiring.done()
    semaphore.release(6)
    await asyncio.wait_for(acquiring, HANG_SECONDS)


async def test_an_amount_over_the_limit_goes_alone() -> None:
    semaphore = WeightedSemaphore(10)
    await asyncio.wait_for(semaphore.acquire(50), HANG_SECONDS)
    acquiring = asyncio.create_task(semaphore.acquire(1))
    await asyncio.sleep(0.01)
    assert not acquiring.done()
    semaphore.release(50)
    await asyncio.wait_for(acquiring, HANG_SECONDS)


async def test_the_small_do_not_overtake_the_large() -> None:
    semaphore = WeightedSemaphore(10)
    await semaphore.acquire(6)
    large = asyncio.create_task(semaphore.acquire(8))
    await asyncio.sleep(0)
    small = asyncio.create_task(semaphore.acquire(1))
    await asyncio.sleep(0.01)
    assert not small.done()
    semaphore.release(6)
    await asyncio.wait_for(asyncio.gather(large, small), HANG_SECONDS)


async def test_what_is_acquired_by_force_holds_others_back() -> None:
    semaphore = WeightedSemaphore(10)
    semaphore.force_acquire(20)
    acquiring = asyncio.create_task(semaphore.acquire(1))
    await asyncio.sleep(0.01)
    assert not acquiring.done()
    semaphore.release(20)
    await asyncio.wait_for(acquiring, HANG_SECONDS)
