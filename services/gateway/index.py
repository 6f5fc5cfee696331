"""What the gateway asks of the search service."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from services.common.filters import Filter
from services.common.vectors import Matrix
from services.gateway.items import Space


class SearchMode(Enum):
    """How an answer was found: exact compares every candidate and has recall 1."""

    EXACT = "exact"
    APPROXIMATE = "approximate"


@dataclass(frozen=True, slots=True)
class IndexHit:
    """An item found in one space: raw score under its metric, and every space in which the item has a vector."""

    id: str
    score: float
    spaces: Sequence[str]


@dataclass(frozen=True, slots=True)
class IndexAnswer:
    """Hits, best first, ties by id; `version` is the token they hold for.

    `candidates` is how many were eligible, `compared` how many of them had their score computed.
    """

    hits: Sequence[IndexHit]
    version: str
    mode: SearchMode
    candidates: int
    compared: int


@dataclass(frozen=True, slots=True)
class Scope:
    """Which items are ranked: those of `collection` that satisfy `condition`, at `version` or later.

    `exact` compares all of them, however they are indexed.
    """

    collection: str
    condition: Filter | None = None
    version: str = ""
    exact: bool = False


class Index(Protocol):
    """The items nearest to a vector."""

    async def search(self, scope: Scope, space: Space, vector: Matrix, passport: str, depth: int) -> IndexAnswer:
        """Return at most `depth` hits in `space` for `vector`; an empty `passport` is not checked.

        Raises:
            NotFoundError: no such collection or space.
            PreconditionError: another passport, or a version of a collection since dropped.
            UnavailableError: the version was not reached in time, or the service does not answer.
        """
        ...
