"""What is noted of each search, for whoever watches over the service."""

from collections.abc import Sequence
from typing import Protocol

from services.search.core.collection_index import SearchResult


class Metrics(Protocol):
    """Takes note of searches; any thread may call it."""

    def searched(self, collection: str, space: str, found: SearchResult, seconds: float) -> None:
        """A vector was searched for alone, in so many seconds, waiting included."""
        ...

    def searched_in_batch(self, collection: str, space: str, found: Sequence[SearchResult]) -> None:
        """Vectors of a batch were searched for."""
        ...


class NoMetrics:
    """A `Metrics` that takes no note."""

    def searched(self, collection: str, space: str, found: SearchResult, seconds: float) -> None:
        """Do nothing."""

    def searched_in_batch(self, collection: str, space: str, found: Sequence[SearchResult]) -> None:
        """Do nothing."""
