"""Several coroutines at once."""

import asyncio

import pytest

from services.common.errors import IdError
from services.common.tasks import together


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
