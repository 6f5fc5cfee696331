"""Waiting out a neighbour that is away or full."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.common.deadlines import remaining_seconds
from services.common.errors import DeadlineError, OverloadedError, ServiceError, UnavailableError

Result = TypeVar("Result")

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0


async def patiently(attempt: Callable[[], Awaitable[Result]], seconds: float) -> Result:
    """Return what `attempt` returns, tried again while a neighbour is away, slow or full.

    For at most `seconds` and within the caller's deadline, with growing pauses; then its last error is raised. Only for
    what may safely be done twice.
    """
    give_up = time.monotonic() + remaining_seconds(seconds)
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await attempt()
        except ServiceError as error:
            if not _passes(error) or time.monotonic() + pause > give_up:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _passes(error: ServiceError) -> bool:
    # A full disk or too large a message is "resource exhausted" as well, and does not pass.
    full = isinstance(error, OverloadedError) and error.reason == "OVERLOADED"
    return full or isinstance(error, UnavailableError | DeadlineError)
