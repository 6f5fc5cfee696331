"""Elements of concurrent calls sent together."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("tritonclient", reason="the extra `triton` is not installed")

from services.common.deadlines import deadline_in
from services.common.errors import DeadlineError, OverloadedError
from services.common.vectors import Matrix
from services.embedder.adapters.triton_batches import Batches, Width
from tests.unit.embedder.encoders import settle


class Held:
    """Answers each number with itself, once `gate` is open, and remembers what it was sent."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.batches: list[list[int]] = []
        self.seconds: list[float] = []
        self.cancelled = 0
        self.error: Exception | None = None

    async def send(self, batch: Sequence[int], seconds: float) -> Matrix:
        self.batches.append(list(batch))
        self.seconds.append(seconds)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return np.array([[number] for number in batch], np.float32)


def batches(held: Held, together: int = 4, lanes: int = 1) -> Batches[int]:
    return Batches(held.send, lambda: Width(together, lanes), most_seconds=10)


async def test_what_comes_while_a_lane_is_busy_goes_together() -> None:
    held = Held()
    sent = batches(held)
    calls = [asyncio.create_task(sent.encode([number])) for number in range(7)]
    await settle()
    assert held.batches == [[0]]
    held.gate.set()
    assert [vector[0][0] for vector in await asyncio.gather(*calls)] == list(range(7))
    assert held.batches == [[0], [1, 2, 3, 4], [5, 6]]


async def test_there_are_no_more_requests_than_lanes() -> None:
    held = Held()
    call = asyncio.create_task(batches(held, together=2, lanes=3).encode(range(10)))
    await settle()
    assert held.batches == [[0, 1], [2, 3], [4, 5]]
    held.gate.set()
    assert [vector[0] for vector in await call] == list(range(10))


async def test_a_request_lasts_as_long_as_its_most_patient_caller() -> None:
    held = Held()
    sent = batches(held)
    with deadline_in(1):
        first = asyncio.create_task(sent.encode([0]))
    await settle()
    with deadline_in(2):
        second = asyncio.create_task(sent.encode([1]))
    with deadline_in(5):
        third = asyncio.create_task(sent.encode([2]))
    await settle()
    held.gate.set()
    await asyncio.gather(first, second, third)
    assert held.batches == [[0], [1, 2]]
    assert held.seconds == [pytest.approx(1, abs=0.3), pytest.approx(5, abs=0.3)]


async def test_a_caller_waits_no_longer_than_its_deadline() -> None:
    held = Held()
    with deadline_in(0.05), pytest.raises(DeadlineError):
        await batches(held).encode([1])
    await settle()
    assert held.cancelled == 1


async def test_a_request_goes_on_while_any_of_its_callers_waits() -> None:
    held = Held()
    sent = batches(held)
    busy = asyncio.create_task(sent.encode([0]))
    await settle()
    one, two = (asyncio.create_task(sent.encode([number])) for number in (1, 2))
    await settle()
    held.gate.set()
    await busy
    held.gate.clear()
    await settle()
    one.cancel()
    await settle()
    assert held.cancelled == 0
    held.gate.set()
    assert (await two)[0][0] == 2


async def test_a_request_that_nobody_waits_for_is_given_up_and_its_lane_is_free() -> None:
    held = Held()
    sent = batches(held)
    call = asyncio.create_task(sent.encode([0]))
    await settle()
    call.cancel()
    await settle()
    assert held.cancelled == 1
    held.gate.set()
    assert (await sent.encode([1]))[0][0] == 1


async def test_what_was_cancelled_while_it_waited_is_never_sent() -> None:
    held = Held()
    sent = batches(held)
    first, second, third = (asyncio.create_task(sent.encode([number])) for number in range(3))
    await settle()
    second.cancel()
    await settle()
    held.gate.set()
    await asyncio.gather(first, third)
    assert held.batches == [[0], [2]]


async def test_every_caller_of_a_failed_request_hears_of_it() -> None:
    held = Held()
    held.error = OverloadedError("full")
    held.gate.set()
    sent = batches(held)
    outcomes = await asyncio.gather(*(sent.encode([number]) for number in range(3)), return_exceptions=True)
    assert outcomes == [held.error] * 3
    held.error = None
    assert (await sent.encode([7]))[0][0] == 7
