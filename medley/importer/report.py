"""Results of an import."""

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that was not ingested: its name, its id if it has one, and why."""

    name: str
    id: str
    reason: str
    problem: str


class Report:
    """Counts processed inputs and calls `on_processed` after each. Safe to share between threads.

    `stopped` says why the import ended early, "" if it did not.
    """

    def __init__(self, on_processed: Callable[[], object] = lambda: None) -> None:
        self.ingested = 0
        self.unchanged = 0
        self.failures: list[Failure] = []
        self.stopped = ""
        self._on_processed = on_processed
        self._lock = threading.Lock()

    @property
    def ok(self) -> bool:
        """Whether every input is in the collection."""
        return not self.failures and not self.stopped

    @property
    def processed(self) -> int:
        """Number of inputs that are ingested, unchanged or failed."""
        return self.ingested + self.unchanged + len(self.failures)

    def count_ingested(self) -> None:
        """Count an input that this run ingested."""
        with self._lock:
            self.ingested += 1
        self._on_processed()

    def count_unchanged(self) -> None:
        """Count an input that is stored unchanged."""
        with self._lock:
            self.unchanged += 1
        self._on_processed()

    def fail(self, failure: Failure) -> None:
        """Record an input that was not ingested."""
        with self._lock:
            self.failures.append(failure)
        self._on_processed()
