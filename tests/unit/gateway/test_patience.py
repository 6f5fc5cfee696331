"""Waiting out neighbours."""

import pytest

from services.common.deadlines import deadline_in
from services.common.errors import IdError, OverloadedError, ServiceError, ServiceUnavailableError
from services.gateway.adapters.store import MediaSizeError
from services.gateway.patience import patiently

AWAY = ServiceUnavailableError("store")
FULL = OverloadedError("full", queue="inputs", limit="1")


class Failing:
    def __init__(self, *errors: ServiceError) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.mark.parametrize("error", [AWAY, FULL])
async def test_a_neighbour_that_is_away_or_full_is_waited_for(error: ServiceError) -> None:
    attempt = Failing(error, error)
    assert await patiently(attempt, seconds=5) == "done"
    assert attempt.calls == 3


@pytest.mark.parametrize("error", [IdError("", "is empty"), MediaSizeError(2, 1)])
async def test_what_does_not_pass_is_raised_at_once(error: ServiceError) -> None:
    attempt = Failing(error)
    with pytest.raises(type(error)):
        await patiently(attempt, seconds=5)
    assert attempt.calls == 1


async def test_the_last_error_is_raised_when_the_time_is_up() -> None:
    with pytest.raises(ServiceUnavailableError):
        await patiently(Failing(*[AWAY] * 100), seconds=0.1)


async def test_the_callers_deadline_ends_it() -> None:
    with deadline_in(0.05), pytest.raises(ServiceUnavailableError):
        await patiently(Failing(*[AWAY] * 100), seconds=60)
