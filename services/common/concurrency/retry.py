"""Repeat what failed for a passing reason, by one policy: exponential backoff with full jitter.

It ends with the caller's deadline, and is only for work that may be done again: because the error says that nothing was
executed, or because doing it twice comes to the same.

Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. Tenacity does the repeating.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

import tenacity

from services.common.deadlines import remaining_seconds
from services.common.errors import DeadlineError, OverloadedError, UnavailableError

T = TypeVar("T")

Retryable = Callable[[Exception], bool]
"""Tells whether the same work may succeed after an error."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses of random length, up to a bound that doubles with each failure from `first` to `longest`, in seconds."""

    first: float
    longest: float

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after `failures` in a row, at least 1."""
        return random.uniform(0, min(self.longest, self.first * 2 ** min(failures - 1, 32)))


BACKOFF = Backoff(first=0.02, longest=1.0)


async def retry(
    work: Callable[[], Awaitable[T]],
    retryable: Retryable,
    *,
    seconds: float = inf,
    attempts: int | None = None,
    backoff: Backoff = BACKOFF,
) -> T:
    """Return what `work` returns, repeated after a `retryable` error; the last error is raised as it is.

    `seconds` limits the time from the first attempt's start to the last one's; the caller's deadline does besides.
    """

    async def attempt() -> T:
        return await work()

    result: T = await tenacity.AsyncRetrying(**_options(retryable, seconds, attempts, backoff))(attempt)
    return result


def retry_blocking(
    work: Callable[[], T],
    retryable: Retryable,
    *,
    seconds: float = inf,
    attempts: int | None = None,
    backoff: Backoff = BACKOFF,
) -> T:
    """Do as `retry` does with work that blocks; run it in a thread."""
    return tenacity.Retrying(**_options(retryable, seconds, attempts, backoff))(work)


def is_transient(error: Exception) -> bool:
    """Return whether a service is away, slow or full, and may be asked again."""
    # A full disk or too large a message is an `OverloadedError` as well, but lasts.
    full = isinstance(error, OverloadedError) and error.reason == OverloadedError.reason
    return full or isinstance(error, UnavailableError | DeadlineError)


def _options(retryable: Retryable, seconds: float, attempts: int | None, backoff: Backoff) -> dict[str, Any]:
    in_time = tenacity.stop_before_delay(remaining_seconds(seconds))
    return {
        "retry": tenacity.retry_if_exception(lambda error: isinstance(error, Exception) and retryable(error)),
        "stop": in_time if attempts is None else in_time | tenacity.stop_after_attempt(attempts),
        "wait": lambda state: backoff.pause(state.attempt_number),
        "reraise": True,
    }
