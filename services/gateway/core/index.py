"""The search service's ports."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeVar

from services.common.filters import Filter
from services.common.vectors import Matrix
from services.gateway.core.items import Space

IndexView = TypeVar("IndexView")


class SearchMode(Enum):
    """How hits were found: exact compares every candidate and has recall 1."""

    EXACT = "exact"
    APPROXIMATE = "approximate"


@dataclass(frozen=True, slots=True)
class IndexHit:
    """An item found in one space: raw score under its metric, and every space in which the item has a vector."""

    id: str
    score: float
    spaces: Sequence[str]


@dataclass(frozen=True, slots=True)
class IndexResult:
    """Hits, best first, ties by id, as of the version token `version`.

    `candidates` counts the eligible items, `compared` those whose score was computed.
    """

    hits: Sequence[IndexHit]
    version: str
    mode: SearchMode
    candidates: int
    compared: int


@dataclass(frozen=True, slots=True)
class Scope:
    """The items to rank: those of `collection` that satisfy `condition`, at `version` or later.

    `exact` compares all of them instead of using an approximate index.
    """

    collection: str
    condition: Filter | None = None
    version: str = ""
    exact: bool = False


@dataclass(frozen=True, slots=True)
class IndexedIds:
    """A part of the ids with a vector in an index, as of `version`."""

    ids: Sequence[str]
    version: str


@dataclass(frozen=True, slots=True)
class ListedIndex(Generic[IndexView]):
    """The name of an index's collection, and the index as the API shows it."""

    collection: str
    view: IndexView


class Index(Protocol):
    """Searches the nearest items of a vector."""

    async def search(self, scope: Scope, space: Space, vector: Matrix, fingerprint: str, depth: int) -> IndexResult:
        """Return at most `depth` hits in `space` for `vector`; an empty `fingerprint` is not checked.

        Raises:
            NotFoundError: no such collection or space.
            PreconditionError: another fingerprint, or a version of a collection that was dropped since.
            UnavailableError: the version was not reached in time, or the service does not answer.
        """
        ...


class IndexMaintenance(Protocol):
    """Reads, rebuilds and cleans up indexes."""

    def list_ids(self, collection: str, space: str, version: str) -> AsyncGenerator[IndexedIds]:
        """Yield the ids of all items in an index, in any order, all as of one version: `version` or later.

        Raises:
            NotFoundError: no such collection or space.
            UnavailableError: the version was not reached in time, or the service does not answer.
        """
        ...

    async def score(self, scope: Scope, space: Space, item_id: str, vector: Matrix) -> float | None:
        """Return the raw score of one item for `vector`; None if the index does not contain it."""
        ...

    async def rebuild(self, collection: str) -> None:
        """Rebuild a collection's indexes, and return when the new ones are in use."""
        ...

    async def drop_snapshots(self, collection: str, before: str) -> None:
        """Remove the index snapshots of a collection that are older than the version token `before`."""
        ...


class IndexLister(Protocol[IndexView]):
    """Lists indexes."""

    async def list_indexes(self) -> Sequence[ListedIndex[IndexView]]:
        """Return all indexes."""
        ...
