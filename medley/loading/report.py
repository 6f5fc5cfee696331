"""What became of the inputs."""

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that did not become an item: where it stands, its id if it has one, and why."""

    name: str
    id: str
    reason: str
    problem: str


class Report:
    """Counts inputs as they are settled; `on_settled` is called after each. Safe to share between threads.

    `stopped` says why inputs were left, "" where none was.
    """

    def __init__(self, on_settled: Callable[[], object] = lambda: None) -> None:
        self.ingested = 0
        self.unchanged = 0
        self.failures: list[Failure] = []
        self.stopped = ""
        self._on_settled = on_settled
        self._lock = threading.Lock()

    @property
    def ok(self) -> bool:
        """Whether every input is in the collection."""
        return not self.failures and not self.stopped

    @property
    def settled(self) -> int:
        """How many inputs are dealt with, one way or another."""
        return self.ingested + self.unchanged + len(self.failures)

    def count_ingested(self) -> None:
        """Count an input as committed by this run."""
        with self._lock:
            self.ingested += 1
        self._on_settled()

    def count_unchanged(self) -> None:
        """Count an input as found in the collection as it is."""
        with self._lock:
            self.unchanged += 1
        self._on_settled()

    def fail(self, failure: Failure) -> None:
        """Note an input that did not become an item."""
        with self._lock:
            self.failures.append(failure)
        self._on_settled()
