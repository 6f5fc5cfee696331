"""Where indexes learn what to hold: the changes of a collection, as values."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.common.index_config import IndexConfig
from services.common.vectors import Matrix, Metric
from services.common.versions import Version


@dataclass(frozen=True, slots=True)
class Space:
    """A named vector column: the length of its vectors, how they compare, what made them, and how they are indexed."""

    name: str
    dimensions: int
    metric: Metric
    fingerprint: str = ""
    config: IndexConfig = field(default_factory=IndexConfig)


@dataclass(frozen=True, slots=True)
class Table:
    """A collection as the store keeps it: `collections/{name}`, its spaces and its newest version."""

    collection: str
    spaces: Sequence[Space]
    version: Version


@dataclass(frozen=True, slots=True)
class SpaceVectors:
    """Vectors of one space: row i of `vectors`, shape (n, dimensions), is that of the part's row `rows[i]`."""

    rows: NDArray[np.int64]
    vectors: Matrix


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """A part of a change: removed ids, then written rows, by id, with metadata as JSON and vectors by space.

    `reset` on a change's first part: forget everything, all rows follow. `version` on its last part and nowhere else:
    with it applied, the collection is at that version. `spaces`, where not empty, are all of them as of that version.
    """

    ids: Sequence[str] = ()
    metadata: Sequence[str] = ()
    vectors: Mapping[str, SpaceVectors] = field(default_factory=dict)
    deleted_ids: Sequence[str] = ()
    reset: bool = False
    version: Version | None = None
    spaces: Sequence[Space] = ()


class ChangeFeed(Protocol):
    """The store, as far as indexes follow it."""

    async def tables(self) -> list[Table]:
        """Return what every collection is now.

        Raises:
            UnavailableError: the store does not answer.
        """
        ...

    async def table(self, collection: str) -> Table:
        """Return what the collection is now.

        Raises:
            CollectionNotFoundError: there is none.
            UnavailableError: the store does not answer.
        """
        ...

    def changes(self, collection: str, after: Version | None) -> AsyncIterator[ChangeBatch]:
        """Yield what changed since `after`, or everything for None, then go on with each commit, without end.

        Raises:
            CollectionNotFoundError: there is none, or it was dropped meanwhile.
            PreconditionError: `after` is no version of the collection.
            UnavailableError: the store does not answer, or no more.
        """
        ...
