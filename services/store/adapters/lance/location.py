"""Where a catalogue of Lance tables has them: a folder or a bucket.

`collections/{name}.json` says that a collection exists, what it is, and by its uid which table under `rows` is its own.
It is the last to appear when a collection is created, and the first to go when it is dropped: a table without one is
what a crash has left.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from services.store.core.rows import CollectionSchema

PREFIX = "collections/"


class Files(Protocol):
    """The files of a Lance dataset, each written once and never changed."""

    def sync(self, dataset: Any) -> None:
        """Return once the commit that `dataset` is open at outlives a power failure."""
        ...


@dataclass(frozen=True, slots=True)
class TableLocation:
    """Where Lance finds a table, and what it needs to get there."""

    uri: str
    files: Files
    options: dict[str, str] = field(default_factory=dict, repr=False)


class TableDirectory(Protocol):
    """Definitions and places of tables, for several processes at a time. Its methods block; they are called in threads.

    What cannot be reached raises `ServiceUnavailableError`.
    """

    def heal(self) -> None:
        """Make the shelf ready, and remove the tables that a crash has left."""
        ...

    def names(self) -> list[str]:
        """Return the names of all collections, ascending."""
        ...

    def definition(self, name: str) -> CollectionSchema | None:
        """Return what the collection is, None where there is none."""
        ...

    def place(self, definition: CollectionSchema) -> TableLocation:
        """Return where the collection's table is."""
        ...

    def creating(self, definition: CollectionSchema) -> AbstractContextManager[None]:
        """Let the block make the table and publish the definition; what it made is removed if it raises.

        Raises:
            CollectionExistsError: the name is taken.
        """
        ...

    def publish(self, definition: CollectionSchema) -> None:
        """Let the collection exist, durably.

        Raises:
            CollectionExistsError: the name was taken meanwhile.
        """
        ...

    def retract(self, definition: CollectionSchema) -> None:
        """Let the collection exist no more, durably."""
        ...

    def discard(self, definition: CollectionSchema) -> None:
        """Remove the table of a collection that does not exist, as far as it can be: the rest is left to `heal`."""
        ...
