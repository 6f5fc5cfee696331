"""How much is taken on at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

from services.common.deadlines import remaining_seconds
from services.common.errors import DeadlineError, OverloadedError


class Admission:
    """Counts what is being worked on. What is over the limit is refused at the door, before any work on it."""

    def __init__(self, queue: str, limit: int) -> None:
        self._queue = queue
        self._limit = limit
        self._admitted = 0

    @contextmanager
    def admit(self, count: int = 1) -> Iterator[None]:
        """Count `count` inputs while the block runs.

        Raises:
            OverloadedError: with them there would be more than the limit.
            DeadlineError: nobody waits for the answer any more.
        """
        if remaining_seconds(1.0) <= 0:
            raise DeadlineError("the deadline passed before the work began", service=self._queue)
        if self._admitted + count > self._limit:
            problem = f"{self._queue}: {self._admitted} under way, {count} more would be over {self._limit}"
            raise OverloadedError(problem, queue=self._queue, limit=str(self._limit))
        self._admitted += count
        try:
            yield
        finally:
            self._admitted -= count
