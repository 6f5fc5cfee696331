"""Retries after transient errors: exponential backoff with full jitter.

Retries end with the caller's deadline. Only for work that is safe to repeat: idempotent, or known not to have been
executed.

Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. Implemented with tenacity.
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
"""Returns whether the same work may succeed after an error."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Random pauses, up to a bound that doubles with each failure from `first` to `longest` seconds."""

    first: float
    longest: float

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after `failures` consecutive failures, at least 1."""
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
    """Return the result of `work`, retried after `retryable` errors; the last error is raised.

    `seconds` limits the time from the start of the first attempt to that of the last; so does the caller's deadline.
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
    """Do as `retry` does, for blocking work; call it in a thread."""
    return tenacity.Retrying(**_options(retryable, seconds, attempts, backoff))(work)


def is_transient(error: Exception) -> bool:
    """Return whether the error is transient: the service is unavailable, slow or overloaded."""
    # A full disk or a message that is too large is an `OverloadedError` too, but not transient.
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
