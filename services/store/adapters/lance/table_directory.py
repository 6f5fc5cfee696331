"""Where the Lance tables of a catalog are: a folder or a bucket.

`collections/{name}.json` holds a collection's schema, and with its uid names the collection's table under `rows`. It is
written last when a collection is created, and deleted first when it is dropped: a table without one is left over from
a crash.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from services.store.core.rows import CollectionSchema

PREFIX = "collections/"


class DatasetFiles(Protocol):
    """The files of a Lance dataset, each written once and never changed."""

    def sync(self, dataset: Any) -> None:
        """Return once the commit that `dataset` is open at survives a power failure."""
        ...


@dataclass(frozen=True, slots=True)
class TableLocation:
    """The URI of a table, and the options that Lance needs to open it."""

    uri: str
    files: DatasetFiles
    storage_options: dict[str, str] = field(default_factory=dict, repr=False)


class TableDirectory(Protocol):
    """Schemas and locations of tables, shared by several processes. Its methods block; they are called in threads.

    If the storage does not answer, they raise `ServiceUnavailableError`.
    """

    def recover(self) -> None:
        """Prepare the directory, and remove the tables that a crash has left."""
        ...

    def names(self) -> list[str]:
        """Return the names of all collections, ascending."""
        ...

    def schema(self, name: str) -> CollectionSchema | None:
        """Return the schema of a collection, None where there is none."""
        ...

    def location(self, schema: CollectionSchema) -> TableLocation:
        """Return where the collection's table is."""
        ...

    def reserve(self, schema: CollectionSchema) -> AbstractContextManager[None]:
        """Run a block that creates the table and publishes the schema; delete the table if it raises.

        Raises:
            CollectionExistsError: the name is taken.
        """
        ...

    def publish(self, schema: CollectionSchema) -> None:
        """Make the collection exist, durably.

        Raises:
            CollectionExistsError: the name has been taken since `reserve`.
        """
        ...

    def unpublish(self, schema: CollectionSchema) -> None:
        """Make the collection not exist, durably."""
        ...

    def delete_table(self, schema: CollectionSchema) -> None:
        """Delete the table of a collection that does not exist. Files that cannot be deleted are left to `recover`."""
        ...
