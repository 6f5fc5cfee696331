"""What is noted of each search, for whoever watches over the service."""

from collections.abc import Sequence
from typing import Protocol

from services.search.core.collection_index import Found


class Meter(Protocol):
    """Takes note of searches; any thread may call it."""

    def searched(self, collection: str, space: str, found: Found, seconds: float) -> None:
        """A vector was searched for alone, in so many seconds, waiting included."""
        ...

    def searched_in_batch(self, collection: str, space: str, found: Sequence[Found]) -> None:
        """Vectors of a batch were searched for."""
        ...


class NoMeter:
    """A `Meter` that takes no note."""

    def searched(self, collection: str, space: str, found: Found, seconds: float) -> None:
        """Do nothing."""

    def searched_in_batch(self, collection: str, space: str, found: Sequence[Found]) -> None:
        """Do nothing."""
