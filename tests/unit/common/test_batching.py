import asyncio
from collections.abc import Sequence

import pytest

from services.common.batching import Batches
from services.common.deadlines import deadline_in
from services.common.errors import DeadlineError


class Work:
    """Doubles its inputs once `gate` is open, and remembers in which batches they came; odd inputs fail."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.batches: list[tuple[str, list[int]]] = []

    async def run(self, key: str, inputs: Sequence[int]) -> list[int | Exception]:
        self.batches.append((key, list(inputs)))
        await self.gate.wait()
        return [ValueError(str(each)) if each % 2 else 2 * each for each in inputs]


def batches(work: Work, lanes: int = 1) -> Batches[str, int, int]:
    return Batches(
        lambda key, inputs: asyncio.ensure_future(work.run(key, inputs)),
        most=lambda key: {"a": 3}.get(key, 2),
        lanes=lanes,
    )


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_key_makes_batches_and_keys_take_turns() -> None:
    work = Work()
    batched = batches(work)
    answers = [*batched.submit("a", 0)]
    await settle()
    answers += batched.submit("a", 2, 4, 6, 8)
    answers += batched.submit("b", 10)
    answers += batched.submit("a", 12)
    work.gate.set()
    assert await asyncio.gather(*answers) == [0, 4, 8, 12, 16, 20, 24]
    assert work.batches == [("a", [0]), ("a", [2, 4, 6]), ("b", [10]), ("a", [8, 12])]


async def test_an_error_reaches_its_caller_alone() -> None:
    work = Work()
    work.gate.set()
    right, wrong = batches(work, lanes=0).submit("a", 2), batches(work).submit("a", 2, 3)
    done = await asyncio.gather(*wrong, return_exceptions=True)
    assert (done[0], str(done[1])) == (4, "3")
    assert not right[0].done()


async def test_what_is_past_its_deadline_is_not_begun() -> None:
    work = Work()
    batched = batches(work)
    (first,) = batched.submit("a", 0)
    with deadline_in(0.01):
        (late,) = batched.submit("a", 2)
    (other,) = batched.submit("a", 4)
    await asyncio.sleep(0.03)
    work.gate.set()
    with pytest.raises(DeadlineError):
        await late
    assert [await first, await other] == [0, 8]
    assert work.batches == [("a", [0]), ("a", [4])]


async def test_a_queue_of_cancelled_inputs_is_passed_over() -> None:
    work = Work()
    batched = batches(work)
    (first,) = batched.submit("a", 0)
    for gone in batched.submit("b", 2, 4, 6):
        gone.cancel()
    (last,) = batched.submit("c", 8)
    work.gate.set()
    assert [await first, await last] == [0, 16]
    assert [key for key, _ in work.batches] == ["a", "c"]
