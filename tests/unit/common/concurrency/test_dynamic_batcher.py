import asyncio
from collections.abc import Sequence

import pytest

from services.common.concurrency.dynamic_batcher import BatchPolicy, DynamicBatcher
from services.common.deadlines import deadline_in, remaining_seconds
from services.common.errors import DeadlineError, OverloadedError


class Work:
    """Doubles its inputs once `gate` is open, and remembers in which batches they came; odd inputs fail."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.batches: list[tuple[str, list[int]]] = []
        self.seconds: list[float] = []
        self.cancelled = 0
        self.error: Exception | None = None

    async def run(self, key: str, inputs: Sequence[int]) -> list[int | Exception]:
        self.batches.append((key, list(inputs)))
        self.seconds.append(remaining_seconds(1000))
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return [ValueError(str(each)) if each % 2 else 2 * each for each in inputs]


def make_batcher(
    work: Work, max_in_flight: int = 1, *, cancel_abandoned: bool = False
) -> DynamicBatcher[str, int, int]:
    return DynamicBatcher(
        lambda key, inputs: asyncio.ensure_future(work.run(key, inputs)),
        lambda key: BatchPolicy(3 if key == "a" else 2, max_in_flight),
        cancel_abandoned=cancel_abandoned,
    )


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_key_makes_batches_and_keys_take_turns() -> None:
    work = Work()
    batcher = make_batcher(work)
    answers = [*batcher.submit("a", 0)]
    await settle()
    answers += batcher.submit("a", 2, 4, 6, 8)
    answers += batcher.submit("b", 10)
    answers += batcher.submit("a", 12)
    work.gate.set()
    assert await asyncio.gather(*answers) == [0, 4, 8, 12, 16, 20, 24]
    assert work.batches == [("a", [0]), ("a", [2, 4, 6]), ("b", [10]), ("a", [8, 12])]


async def test_an_error_reaches_its_caller_alone() -> None:
    work = Work()
    work.gate.set()
    right, wrong = make_batcher(work, max_in_flight=0).submit("a", 2), make_batcher(work).submit("a", 2, 3)
    done = await asyncio.gather(*wrong, return_exceptions=True)
    assert (done[0], str(done[1])) == (4, "3")
    assert not right[0].done()


async def test_what_is_past_its_deadline_is_not_begun() -> None:
    work = Work()
    batcher = make_batcher(work)
    (first,) = batcher.submit("a", 0)
    with deadline_in(0.01):
        (late,) = batcher.submit("a", 2)
    (other,) = batcher.submit("a", 4)
    await asyncio.sleep(0.03)
    work.gate.set()
    with pytest.raises(DeadlineError):
        await late
    assert [await first, await other] == [0, 8]
    assert work.batches == [("a", [0]), ("a", [4])]


async def test_a_queue_of_cancelled_inputs_is_passed_over() -> None:
    work = Work()
    batcher = make_batcher(work)
    (first,) = batcher.submit("a", 0)
    for gone in batcher.submit("b", 2, 4, 6):
        gone.cancel()
    (last,) = batcher.submit("c", 8)
    work.gate.set()
    assert [await first, await last] == [0, 16]
    assert [key for key, _ in work.batches] == ["a", "c"]


async def test_no_more_batches_run_than_may() -> None:
    work = Work()
    answers = asyncio.create_task(make_batcher(work, max_in_flight=3).run("b", range(0, 20, 2)))
    await settle()
    assert work.batches == [("b", [0, 2]), ("b", [4, 6]), ("b", [8, 10])]
    work.gate.set()
    assert await answers == list(range(0, 40, 4))


async def test_a_batch_has_the_latest_deadline_of_its_callers() -> None:
    work = Work()
    batcher = make_batcher(work)
    answers: list[asyncio.Future[int]] = []
    for seconds in (100, 200, 500):
        with deadline_in(seconds):
            answers += batcher.submit("a", 0)
    answers += [*batcher.submit("b", 0), *batcher.submit("c", 0)]
    with deadline_in(200):
        answers += batcher.submit("c", 0)
    work.gate.set()
    await asyncio.gather(*answers)
    assert [key for key, _ in work.batches] == ["a", "a", "b", "c"]
    assert work.seconds == [pytest.approx(100, abs=50), pytest.approx(500, abs=50), 1000, 1000]


async def test_every_caller_of_a_failed_batch_hears_of_it_and_others_follow() -> None:
    work = Work()
    work.error = OverloadedError("full")
    work.gate.set()
    batcher = make_batcher(work)
    outcomes = await asyncio.gather(*(batcher.run("a", [number]) for number in (2, 4, 6)), return_exceptions=True)
    assert outcomes == [work.error] * 3
    work.error = None
    assert await batcher.run("a", [8]) == [16]


async def test_a_cancelled_caller_takes_back_what_is_not_begun() -> None:
    work = Work()
    batcher = make_batcher(work)
    first, second, third = (asyncio.create_task(batcher.run("a", [number])) for number in (0, 2, 4))
    await settle()
    second.cancel()
    await settle()
    work.gate.set()
    assert [await first, await third] == [[0], [8]]
    assert work.batches == [("a", [0]), ("a", [4])]


async def test_an_abandoned_batch_is_cancelled_and_makes_room() -> None:
    work = Work()
    batcher = make_batcher(work, cancel_abandoned=True)
    call = asyncio.create_task(batcher.run("a", [0, 2]))
    await settle()
    call.cancel()
    await settle()
    assert work.cancelled == 1
    work.gate.set()
    assert await batcher.run("a", [4]) == [8]


async def test_a_batch_goes_on_while_any_of_its_callers_waits() -> None:
    work = Work()
    batcher = make_batcher(work, cancel_abandoned=True)
    (busy,) = batcher.submit("a", 0)
    one, two = (asyncio.create_task(batcher.run("a", [number])) for number in (2, 4))
    await settle()
    work.gate.set()
    await busy
    work.gate.clear()
    await settle()
    one.cancel()
    await settle()
    assert work.cancelled == 0
    work.gate.set()
    assert await two == [8]


async def test_an_abandoned_batch_that_may_not_be_cancelled_keeps_its_place() -> None:
    work = Work()
    batcher = make_batcher(work)
    (gone,) = batcher.submit("a", 0)
    (next_one,) = batcher.submit("a", 2)
    gone.cancel()
    await settle()
    assert (work.cancelled, work.batches) == (0, [("a", [0])])
    work.gate.set()
    assert await next_one == 4


async def test_when_a_batch_is_cancelled_from_below_so_are_its_callers() -> None:
    running: asyncio.Future[Sequence[int | Exception]] = asyncio.get_running_loop().create_future()
    batcher: DynamicBatcher[str, int, int] = DynamicBatcher(
        lambda key, inputs: running, lambda key: BatchPolicy(1, 1), cancel_abandoned=False
    )
    (answer,) = batcher.submit("a", 0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answer
