"""The deadline of the call being served, which limits every outgoing call."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextmanager
def deadline_in(seconds: float | None) -> Iterator[None]:
    """Limit the block to `seconds`, or to the current deadline if that is earlier; None adds no limit."""
    earlier = _deadline.get()
    own = None if seconds is None else time.monotonic() + seconds
    both = [moment for moment in (earlier, own) if moment is not None]
    token = _deadline.set(min(both, default=None))
    try:
        yield
    finally:
        _deadline.reset(token)


def set_deadline(seconds: float | None) -> None:
    """Set the deadline of the call that this task serves; the task serves no other, so it is not reset."""
    _deadline.set(None if seconds is None else time.monotonic() + seconds)


def remaining_seconds(at_most: float) -> float:
    """Return the time left to the current call, from 0 to `at_most`."""
    moment = _deadline.get()
    return at_most if moment is None else max(0.0, min(at_most, moment - time.monotonic()))
