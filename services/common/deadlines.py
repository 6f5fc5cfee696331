"""The deadline of the call being served, so that every outgoing call gets what is left of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextmanager
def deadline_in(seconds: float | None) -> Iterator[None]:
    """Let the block have at most `seconds`, or the deadline it already has if that is earlier; None adds none."""
    earlier = _deadline.get()
    mine = None if seconds is None else time.monotonic() + seconds
    both = [moment for moment in (earlier, mine) if moment is not None]
    token = _deadline.set(min(both, default=None))
    try:
        yield
    finally:
        _deadline.reset(token)


def set_deadline(seconds: float | None) -> None:
    """Set the deadline of the call that this task serves; the task is the call's own, so nothing is put back."""
    _deadline.set(None if seconds is None else time.monotonic() + seconds)


def remaining_seconds(at_most: float) -> float:
    """Return the time left to the current call, never below 0, and at most `at_most`."""
    moment = _deadline.get()
    return at_most if moment is None else max(0.0, min(at_most, moment - time.monotonic()))
