"""What is repeated, how often, and for how long."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from services.common.concurrency.retry import Backoff, is_transient, retry, retry_blocking
from services.common.deadlines import deadline_in
from services.common.errors import IdError, OverloadedError, ServiceError, ServiceUnavailableError, StorageFullError

UNAVAILABLE = ServiceUnavailableError("store")
FULL = OverloadedError("full", queue="inputs", limit="1")


class Failing:
    """Work that raises `errors`, one a call, and then returns."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    async def later(self) -> str:
        return self()


Retry = Callable[..., Awaitable[str]]


async def retry_in_thread(work: Failing, **options: object) -> str:
    return await asyncio.to_thread(retry_blocking, work, is_transient, **options)  # type: ignore[arg-type]


async def retry_here(work: Failing, **options: object) -> str:
    return await retry(work.later, is_transient, **options)  # type: ignore[arg-type]


both = pytest.mark.parametrize("run", [retry_here, retry_in_thread])


@both
@pytest.mark.parametrize("error", [UNAVAILABLE, FULL])
async def test_a_service_that_is_away_or_full_is_asked_again(run: Retry, error: ServiceError) -> None:
    work = Failing(error, error)
    assert await run(work, seconds=5) == "done"
    assert work.calls == 3


@both
@pytest.mark.parametrize("error", [IdError("", "is empty"), StorageFullError("/"), ZeroDivisionError()])
async def test_an_error_that_lasts_is_raised_at_once(run: Retry, error: Exception) -> None:
    work = Failing(error)
    with pytest.raises(type(error)) as raised:
        await run(work, seconds=5)
    assert raised.value is error
    assert work.calls == 1


@both
async def test_the_last_error_is_raised_when_the_time_is_up(run: Retry) -> None:
    with pytest.raises(ServiceUnavailableError):
        await run(Failing(*[UNAVAILABLE] * 1000), seconds=0.1)


@both
async def test_the_last_error_is_raised_after_so_many_attempts(run: Retry) -> None:
    work = Failing(*[UNAVAILABLE] * 1000)
    with pytest.raises(ServiceUnavailableError):
        await run(work, attempts=4, backoff=Backoff(0, 0))
    assert work.calls == 4


@both
async def test_the_callers_deadline_ends_it(run: Retry) -> None:
    with deadline_in(0.05), pytest.raises(ServiceUnavailableError):
        await run(Failing(*[UNAVAILABLE] * 1000))


async def test_a_caller_that_is_cancelled_asks_no_more() -> None:
    work = Failing(*[UNAVAILABLE] * 1000)
    task = asyncio.create_task(retry_here(work, backoff=Backoff(60, 60)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.calls == 1


async def test_cancelled_work_is_not_repeated() -> None:
    work = Failing(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await retry(work.later, lambda error: True)
    assert work.calls == 1


@pytest.mark.parametrize(("failures", "bound"), [(1, 0.1), (2, 0.2), (4, 0.8), (5, 1.0), (100_000, 1.0)])
def test_pauses_are_random_up_to_a_bound_that_doubles(failures: int, bound: float) -> None:
    pauses = [Backoff(0.1, 1.0).pause(failures) for _ in range(1000)]
    assert 0 <= min(pauses) < bound / 4
    assert bound * 3 / 4 < max(pauses) <= bound
