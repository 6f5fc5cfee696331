"""What the gateway asks of the store, one port a task. Items and collections for callers to see pass through unread."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from services.common.errors import ServiceError
from services.common.index_config import IndexConfig
from services.common.vectors import Matrix
from services.gateway.core.findings import Finding, RowCheckOptions, RowCheckPart
from services.gateway.core.items import Collection, ItemField, MediaFacts, MediaSource

ShownItem = TypeVar("ShownItem")
ShownItem_co = TypeVar("ShownItem_co", covariant=True)
CollectionView = TypeVar("CollectionView")
CollectionView_co = TypeVar("CollectionView_co", covariant=True)
RowView_contra = TypeVar("RowView_contra", contravariant=True)
ResultView_co = TypeVar("ResultView_co", covariant=True)


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


@dataclass(frozen=True, slots=True)
class ListedCollection(Generic[CollectionView]):
    """A collection by its name, and as callers see it."""

    name: str
    view: CollectionView


@dataclass(frozen=True, slots=True)
class RowChanges:
    """Ids written or removed since the previous part, up to `version`, which is empty within a commit.

    With `reset` the changes before are not known any more, and all rows follow.
    """

    ids: frozenset[str]
    version: str
    reset: bool


@dataclass(frozen=True, slots=True)
class PurgedMedia:
    """What became of an object: gone, or kept by the item or tag that still refers to it."""

    sha256: str
    gone: bool
    kept_by: str


@dataclass(frozen=True, slots=True)
class Purge:
    """What a purge left: no version before `version` can be read but those of `tags`, which still hold the rows."""

    version: str
    tags: Sequence[str]
    media: Sequence[PurgedMedia]


class CollectionStore(Protocol[CollectionView_co]):
    """The definitions of collections."""

    async def create(self, collection: Collection, indexes: Mapping[str, IndexConfig]) -> CollectionView_co:
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
        self, collection: str, rows: Sequence[Row], fingerprints: Mapping[str, str]
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
        self, collection: str, change: RowChange, fingerprints: Mapping[str, str]
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


class CollectionLister(Protocol[CollectionView]):
    """What collections there are."""

    async def collections(self) -> Sequence[ListedCollection[CollectionView]]:
        """Return all collections, by name."""
        ...

    async def count(self, collection: str) -> int:
        """Return how many items a collection has.

        Raises:
            NotFoundError: there is no such collection.
        """
        ...


class IntegrityStore(Protocol):
    """The store's own checks, and what has changed since."""

    def check_rows(self, collection: str, options: RowCheckOptions) -> AsyncGenerator[RowCheckPart]:
        """Yield the `CheckedTable`, then every row once, the sample and the findings, in any order.

        Raises:
            CorruptError: files of the rows are missing.
            NotFoundError: no such collection.
        """
        ...

    def check_media(self, *, remove: bool) -> AsyncGenerator[Finding]:
        """Yield the objects that no row refers to, removed where asked for."""
        ...

    def changes(self, collection: str, after: str) -> AsyncGenerator[RowChanges]:
        """Yield what is written after the version `after`, without end."""
        ...


class RowEraser(Protocol):
    """Rows, removed for good."""

    async def media(self, collection: str, ids: Sequence[str]) -> Mapping[str, str]:
        """Return the hash of the media of each of `ids` that has an item, "" where it has none."""
        ...

    async def delete(self, collection: str, ids: Sequence[str]) -> str:
        """Remove rows from the newest version; return the version token without them."""
        ...

    async def purge(self, collection: str, ids: Sequence[str], sha256s: Sequence[str]) -> Purge:
        """Remove what is left of removed rows in older versions, and objects that nobody else refers to."""
        ...


class RowRestorer(Protocol[RowView_contra, ResultView_co]):
    """Rows written as callers sent them, unread."""

    async def restore(
        self, collection: str, rows: Sequence[RowView_contra], fingerprints: Mapping[str, str]
    ) -> Sequence[ResultView_co]:
        """Commit `rows` at once; return what became of each, in order.

        Raises:
            PreconditionError: a fingerprint is not its space's; nothing is written.
        """
        ...
