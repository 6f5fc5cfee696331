"""What the gateway asks of the search service."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeVar

from services.common.filters import Filter
from services.common.vectors import Matrix
from services.gateway.core.items import Space

IndexView = TypeVar("IndexView")


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


@dataclass(frozen=True, slots=True)
class IndexedIds:
    """Some ids with a vector in an index, as of `version`."""

    ids: Sequence[str]
    version: str


@dataclass(frozen=True, slots=True)
class ListedIndex(Generic[IndexView]):
    """An index by its collection, and as callers see it."""

    collection: str
    view: IndexView


class Index(Protocol):
    """The items nearest to a vector."""

    async def search(self, scope: Scope, space: Space, vector: Matrix, fingerprint: str, depth: int) -> IndexAnswer:
        """Return at most `depth` hits in `space` for `vector`; an empty `fingerprint` is not checked.

        Raises:
            NotFoundError: no such collection or space.
            PreconditionError: another fingerprint, or a version of a collection since dropped.
            UnavailableError: the version was not reached in time, or the service does not answer.
        """
        ...


class IndexMaintenance(Protocol):
    """What indexes hold, and having them hold something else."""

    def ids(self, collection: str, space: str, version: str) -> AsyncGenerator[IndexedIds]:
        """Yield the ids of all items in an index, in any order, all of one version: `version` or later.

        Raises:
            NotFoundError: no such collection or space.
            UnavailableError: the version was not reached in time, or the service does not answer.
        """
        ...

    async def score(self, scope: Scope, space: Space, item_id: str, vector: Matrix) -> float | None:
        """Return the raw score of one item for `vector`, None if the index does not have it."""
        ...

    async def rebuild(self, collection: str) -> None:
        """Build a collection's indexes anew, and return once they answer."""
        ...

    async def drop_snapshots(self, collection: str, before: str) -> None:
        """Remove the snapshots of a collection's indexes of versions before the token `before`."""
        ...


class IndexLister(Protocol[IndexView]):
    """What indexes there are."""

    async def indexes(self) -> Sequence[ListedIndex[IndexView]]:
        """Return all indexes."""
        ...
