"""What search asks of the index of a collection: all its spaces, with ids and metadata, version by version."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

from services.common.filters import Filter
from services.common.index_config import IndexConfig
from services.common.vectors import Matrix
from services.common.versions import Version
from services.search.core.change_feed import ChangeBatch, Space


class Mode(Enum):
    """How hits were found; the value is what the API's name ends in."""

    EXACT = "EXACT"
    APPROXIMATE = "APPROXIMATE"


class State(Enum):
    """How far an index is from what its space's config asks for; see `medley.v1.IndexState`."""

    READY = "READY"
    BUILDING = "BUILDING"
    DEGRADED = "DEGRADED"
    FAILED = "FAILED"
    WAITING = "WAITING"


@dataclass(frozen=True, slots=True)
class Search:
    """What is wanted of a space, whatever the vector: the `top_k` nearest items that satisfy `condition`.

    With `ids`, only those items are ranked; with `score_limit`, only hits at least as near as that score are returned.
    `exact` compares every candidate, whatever the index. Two equal searches may share a call of the engine.
    """

    space: str
    top_k: int
    condition: Filter | None = None
    ids: frozenset[str] = frozenset()
    score_limit: float | None = None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    """An item found: its id, its score under the space's metric, and all spaces in which it has a vector."""

    item_id: str
    score: float
    spaces: Sequence[str]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found: hits best first, equal scores by id (UTF-8 order), also at the cut.

    `candidates` is how many items have a vector in the space and satisfy the filter, `compared` how many of them had
    their float32 score computed; `version` is what this holds for.
    """

    hits: Sequence[Hit]
    candidates: int
    version: Version
    mode: Mode = Mode.EXACT
    compared: int = 0


@dataclass(frozen=True, slots=True)
class Recall:
    """Mean recall at 10 over `queries` queries whose filter left more than `share_above`, up to `share_up_to`."""

    share_above: float
    share_up_to: float
    recall: float
    queries: int


@dataclass(frozen=True, slots=True)
class SpaceState:
    """The index of a space as it is; `note` says for people why the state is what it is, "" when ready."""

    space: Space
    engine: str
    vectors: int
    memory_bytes: int
    version: Version
    config: IndexConfig
    state: State = State.READY
    note: str = ""
    recall: Sequence[Recall] = ()


class CollectionIndex(Protocol):
    """All that search holds of one collection. Implementations pass `tests.contract.collection_index`.

    Written by one thread: the parts of a change, then `publish` or `rollback`. Searched by any number of threads, which
    see whole versions and never wait for the writer. Calls block.
    """

    @property
    def version(self) -> Version | None:
        """The version published last; None before the first, and once the engine has lost it: build it anew."""
        ...

    def space(self, name: str) -> Space:
        """Return the space called `name`.

        Raises:
            SpaceNotFoundError: there is none.
        """
        ...

    def states(self) -> Sequence[SpaceState]:
        """Return the state of each space, by name; none before the first version."""
        ...

    def write(self, part: ChangeBatch) -> None:
        """Take in a part of a change, which no search sees before it is published."""
        ...

    def publish(self, version: Version) -> None:
        """Show what was taken in, all at once, as `version`."""
        ...

    def rollback(self) -> None:
        """Forget what was taken in and not published."""
        ...

    def close(self) -> None:
        """Stop what goes on behind the searches; those that still come are answered, and nothing is written."""
        ...

    def search(self, search: Search, queries: Matrix) -> Sequence[SearchResult]:
        """Return what each of `queries`, shape (n, dimensions), finds, all in the newest version.

        Raises:
            SpaceNotFoundError: there is no such space.
        """
        ...

    def item_ids(self, space: str) -> tuple[Sequence[str], Version]:
        """Return the ids of all items with a vector in `space`, in any order, and the version that holds for.

        Raises:
            SpaceNotFoundError: there is no such space.
        """
        ...


@runtime_checkable
class Discardable(Protocol):
    """What a `CollectionIndex` may be besides: one that is kept elsewhere, where it outlives this process."""

    def discard(self) -> None:
        """Remove what is kept of it: the collection was dropped.

        Raises:
            UnavailableError: where it is kept does not answer; it stays there.
        """
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """Hits somewhere in a ranking, and whether there are more behind them."""

    result: SearchResult
    more: bool


class Pages(Protocol):
    """The exact ranking of all candidates for one query in one version, read in pages from any place."""

    def page(self, begin: int, size: int) -> Page:
        """Return `size` hits from place `begin` on, counted from 0; fewer where the ranking ends.

        Raises:
            LeaseExpiredError: the version is no longer held.
        """
        ...


class ReadView(Protocol):
    """A version of a collection that can be searched until it is released, whatever is published meanwhile."""

    @property
    def version(self) -> Version:
        """Which one it is."""
        ...

    def search(self, search: Search, queries: Matrix) -> Sequence[SearchResult]:
        """As `CollectionIndex.search`, in this version.

        Raises:
            SpaceNotFoundError: there is no such space.
            LeaseExpiredError: the version is no longer held because too much was written since.
        """
        ...

    def pages(self, search: Search, query: Matrix) -> Pages:
        """Return what `query`, shape (dimensions,), finds, for reading in pages; `top_k` does not bound it.

        Raises:
            SpaceNotFoundError: there is no such space.
        """
        ...

    def release(self) -> None:
        """Hold the version no more."""
        ...


@runtime_checkable
class SupportsReadViews(Protocol):
    """What a `CollectionIndex` may be besides: one whose newest version can be held from search to search.

    Without it a collection has no pages, and a batch is one call of `search`.
    """

    def open_view(self) -> ReadView:
        """Hold the version published last."""
        ...
