"""What a collection's index holds, taken out whole so that another can be filled with it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from services.common.vectors import Matrix
from services.common.versions import Version
from services.search.core.candidate_index import AnnKind
from services.search.core.change_feed import Space
from services.search.core.collection_index import CollectionIndex
from services.search.core.vector_index import Numbers


@dataclass(frozen=True, slots=True)
class AnnExport:
    """An approximate index that was built for a space, as `kind` says; it knows the slots `current` as they are.

    `save` writes it to a file.
    """

    kind: AnnKind
    current: Numbers
    save: Callable[[BinaryIO], None]


@dataclass(frozen=True, slots=True)
class SpaceExport:
    """The vectors of a space: slots[i], ascending, holds that of the item numbered items[i].

    `vectors` returns those of some slots as they are held, shape (n, dimensions); `ann` is None where nothing was.
    """

    space: Space
    items: Numbers
    slots: Numbers
    vectors: Callable[[Numbers], Matrix]
    ann: AnnExport | None = None


@dataclass(frozen=True, slots=True)
class CollectionExport:
    """One version of a collection: its items, numbered from 0, and the vectors of its spaces.

    `rows` returns the ids and the metadata, as JSON, of the items from one number up to another.
    """

    version: Version
    items: int
    rows: Callable[[int, int], tuple[Sequence[str], Sequence[str]]]
    spaces: Sequence[SpaceExport]


class PortableIndex(CollectionIndex, Protocol):
    """A `CollectionIndex` in the memory of this process, whose content another process can go on with."""

    def export(self) -> AbstractContextManager[CollectionExport]:
        """Give the content of the newest version, which stays as it is while the block runs."""
        ...

    def load_vectors(self, space: str, items: Numbers, slots: Numbers, vectors: Matrix) -> None:
        """Put row i of `vectors`, as an index held it, into slots[i] of an index that holds nothing yet.

        It is the vector of the item that was the items[i]-th written, from 0. Slots ascend from call to call.
        """
        ...

    def load_ann_index(self, space: str, file: BinaryIO, current: Numbers) -> None:
        """Go on with the approximate index in `file`, built as the space's config asks, for slots placed before.

        Of those it knows the slots `current` as they are. Nothing was published yet.

        Raises:
            ValueError: there is no such index in the file, or this process has none; nothing is changed.
        """
        ...
