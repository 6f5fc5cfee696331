"""What the gateway asks of the store, one port a task. Items and collections for callers to see pass through unread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from services.common.errors import ServiceError
from services.common.index_config import IndexConfig
from services.common.vectors import Matrix
from services.gateway.items import Collection, ItemField, MediaFacts, MediaSource

ShownItem = TypeVar("ShownItem")
ShownItem_co = TypeVar("ShownItem_co", covariant=True)
ShownCollection_co = TypeVar("ShownCollection_co", covariant=True)


@dataclass(frozen=True, slots=True)
class RowMedia:
    """Media of a row: where the bytes are, and what they are."""

    source: MediaSource
    facts: MediaFacts


@dataclass(frozen=True, slots=True)
class Row:
    """A row to write; it replaces the one of its id."""

    id: str
    text: str | None
    media: RowMedia | None
    metadata_json: str
    vectors: Mapping[str, Matrix]


@dataclass(frozen=True, slots=True)
class Written:
    """A committed row: its new revision, and the version token of the collection that holds it."""

    id: str
    revision: int
    version: str


@dataclass(frozen=True, slots=True)
class ItemState:
    """What a row holds; `sha256` names its media, empty when it has none."""

    text: str | None
    sha256: str
    revision: int
    spaces: frozenset[str]


@dataclass(frozen=True, slots=True)
class ReplaceMetadata:
    """All metadata become this JSON object."""

    json: str


@dataclass(frozen=True, slots=True)
class MergeMetadata:
    """The metadata are merged with this JSON object (RFC 7396)."""

    json: str


MetadataChange = ReplaceMetadata | MergeMetadata


@dataclass(frozen=True, slots=True)
class RowChange:
    """A change of some fields: None keeps, a text of "" removes. `expected_revision` None takes any."""

    id: str
    text: str | None = None
    media: RowMedia | None = None
    remove_media: bool = False
    metadata: MetadataChange | None = None
    vectors: Mapping[str, Matrix] = field(default_factory=dict)
    expected_revision: int | None = None


class CollectionStore(Protocol[ShownCollection_co]):
    """The definitions of collections."""

    async def create(self, collection: Collection, indexes: Mapping[str, IndexConfig]) -> ShownCollection_co:
        """Create `collection`, its spaces indexed by `indexes`, or return the same one that is there as it is.

        Spaces that `indexes` leaves out are indexed as is usual.

        Raises:
            AlreadyExistsError: it is there with other spaces.
        """
        ...

    async def collection(self, name: str) -> Collection:
        """Return the collection of the name.

        Raises:
            NotFoundError: there is none.
        """
        ...


class ItemReader(Protocol[ShownItem_co]):
    """Items by id."""

    async def find(
        self, collection: str, ids: Sequence[str], fields: Sequence[ItemField]
    ) -> Sequence[ShownItem_co | None]:
        """Return the items of `ids`, in order, None for one that is gone; without `fields` text, metadata and media."""
        ...

    async def vectors(self, collection: str, item_id: str) -> Mapping[str, Matrix]:
        """Return an item's vectors by space.

        Raises:
            NotFoundError: no such item.
        """
        ...


class RowWriter(Protocol):
    """Rows, a batch at a time."""

    async def upsert(
        self, collection: str, rows: Sequence[Row], passports: Mapping[str, str]
    ) -> list[Written | ServiceError]:
        """Commit `rows`, ids unique, at once; return what became of each, in order."""
        ...


class RowEditor(Protocol[ShownItem_co]):
    """One row, read and changed."""

    async def state(self, collection: str, item_id: str) -> ItemState:
        """Return what the row holds.

        Raises:
            NotFoundError: no such item.
        """
        ...

    async def update(
        self, collection: str, change: RowChange, passports: Mapping[str, str]
    ) -> tuple[ShownItem_co, str]:
        """Commit `change`; return the item and the version token that holds it.

        A space made from a content that changes loses its vector unless the change brings one.

        Raises:
            ConflictError: the row has another revision than expected.
            NotFoundError: no such item.
        """
        ...


class MediaReader(Protocol):
    """Stored media."""

    async def read(self, sha256: str, max_bytes: int) -> bytes:
        """Return the object of the hash.

        Raises:
            NotFoundError: there is none.
            OverloadedError: it is larger than `max_bytes`.
        """
        ...
