"""What is noted of each search, for whoever watches over the service."""

from collections.abc import Sequence
from typing import Protocol

from services.search.core.collection_index import SearchResult


class Metrics(Protocol):
    """Takes note of searches; any thread may call it."""

    def record_search(self, collection: str, space: str, result: SearchResult, seconds: float) -> None:
        """A vector was searched for alone, in so many seconds, waiting included."""
        ...

    def record_batch(self, collection: str, space: str, result: Sequence[SearchResult]) -> None:
        """Vectors of a batch were searched for."""
        ...


class NoMetrics:
    """A `Metrics` that takes no note."""

    def record_search(self, collection: str, space: str, result: SearchResult, seconds: float) -> None:
        """Do nothing."""

    def record_batch(self, collection: str, space: str, result: Sequence[SearchResult]) -> None:
        """Do nothing."""
