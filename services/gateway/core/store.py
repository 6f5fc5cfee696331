"""The store's ports, one for each task.

The type variables `…View` stand for messages that the gateway passes on to callers without reading them.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from services.common.errors import ServiceError
from services.common.index_config import IndexConfig
from services.common.vectors import Matrix
from services.gateway.core.findings import Finding, RowCheckOptions, RowCheckPart
from services.gateway.core.items import Collection, ItemField, MediaFacts, MediaSource

ItemView = TypeVar("ItemView")
ItemView_co = TypeVar("ItemView_co", covariant=True)
CollectionView = TypeVar("CollectionView")
CollectionView_co = TypeVar("CollectionView_co", covariant=True)
RowView_contra = TypeVar("RowView_contra", contravariant=True)
ResultView_co = TypeVar("ResultView_co", covariant=True)


@dataclass(frozen=True, slots=True)
class RowMedia:
    """Media of a row: where the bytes are, and their properties."""

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
class WrittenRow:
    """A committed row: its new revision, and the version token of the collection that holds it."""

    id: str
    revision: int
    version: str


@dataclass(frozen=True, slots=True)
class ItemState:
    """The content of a row; `sha256` names its media and is empty when there are none."""

    text: str | None
    sha256: str
    revision: int
    spaces: frozenset[str]


@dataclass(frozen=True, slots=True)
class ReplaceMetadata:
    """Replaces the metadata by this JSON object."""

    json: str


@dataclass(frozen=True, slots=True)
class MergeMetadata:
    """Merges this JSON object into the metadata (RFC 7396)."""

    json: str


MetadataChange = ReplaceMetadata | MergeMetadata


@dataclass(frozen=True, slots=True)
class RowChange:
    """A change of some fields: None keeps a field, a text of "" removes it. `expected_revision` None takes any."""

    id: str
    text: str | None = None
    media: RowMedia | None = None
    remove_media: bool = False
    metadata: MetadataChange | None = None
    vectors: Mapping[str, Matrix] = field(default_factory=dict)
    expected_revision: int | None = None


@dataclass(frozen=True, slots=True)
class ListedCollection(Generic[CollectionView]):
    """The name of a collection, and the collection as the API shows it."""

    name: str
    view: CollectionView


@dataclass(frozen=True, slots=True)
class RowChanges:
    """Ids written or removed since the previous part, up to `version`, which is empty within a commit.

    `reset` means that earlier changes are no longer known, and that all rows follow.
    """

    ids: frozenset[str]
    version: str
    reset: bool


@dataclass(frozen=True, slots=True)
class PurgedMedia:
    """The outcome for an object: gone, or kept by an item or tag that still refers to it."""

    sha256: str
    gone: bool
    kept_by: str


@dataclass(frozen=True, slots=True)
class PurgeResult:
    """The outcome of a purge: versions before `version` are gone, except those of `tags`, which hold the rows."""

    version: str
    tags: Sequence[str]
    media: Sequence[PurgedMedia]


class CollectionStore(Protocol[CollectionView_co]):
    """Creates and reads the definitions of collections."""

    async def create_collection(self, collection: Collection, indexes: Mapping[str, IndexConfig]) -> CollectionView_co:
        """Create `collection` with `indexes` by space, or return it unchanged if it exists with the same spaces.

        Spaces missing from `indexes` get the default index.

        Raises:
            AlreadyExistsError: it exists with other spaces.
        """
        ...

    async def get_collection(self, name: str) -> Collection:
        """Return a collection by name.

        Raises:
            NotFoundError: no such collection.
        """
        ...


class ItemReader(Protocol[ItemView_co]):
    """Reads items by id."""

    async def get_items(
        self, collection: str, ids: Sequence[str], fields: Sequence[ItemField]
    ) -> Sequence[ItemView_co | None]:
        """Return the items of `ids`, in order, None for a missing one; no `fields` means text, metadata and media."""
        ...

    async def get_vectors(self, collection: str, item_id: str) -> Mapping[str, Matrix]:
        """Return an item's vectors by space.

        Raises:
            NotFoundError: no such item.
        """
        ...


class RowWriter(Protocol):
    """Writes rows in batches."""

    async def upsert(
        self, collection: str, rows: Sequence[Row], fingerprints: Mapping[str, str]
    ) -> list[WrittenRow | ServiceError]:
        """Commit `rows`, whose ids are unique, in one version; return the outcome of each, in order."""
        ...


class RowEditor(Protocol[ItemView_co]):
    """Reads and updates single rows."""

    async def get_state(self, collection: str, item_id: str) -> ItemState:
        """Return the content of the row.

        Raises:
            NotFoundError: no such item.
        """
        ...

    async def update(
        self, collection: str, change: RowChange, fingerprints: Mapping[str, str]
    ) -> tuple[ItemView_co, str]:
        """Commit `change`; return the item and the version token that holds it.

        A space whose source changes loses its vector unless `change` contains a new one.

        Raises:
            ConflictError: the row has another revision than expected.
            NotFoundError: no such item.
        """
        ...


class MediaReader(Protocol):
    """Reads stored media."""

    async def read_media(self, sha256: str, max_bytes: int) -> bytes:
        """Return the object with the hash.

        Raises:
            NotFoundError: no such object.
            OverloadedError: it is larger than `max_bytes`.
        """
        ...


class CollectionLister(Protocol[CollectionView]):
    """Lists collections and counts their items."""

    async def list_collections(self) -> Sequence[ListedCollection[CollectionView]]:
        """Return all collections, by name."""
        ...

    async def count_rows(self, collection: str) -> int:
        """Return the number of items of a collection.

        Raises:
            NotFoundError: no such collection.
        """
        ...


class IntegrityStore(Protocol):
    """Checks rows and media, and watches changes."""

    def check_rows(self, collection: str, options: RowCheckOptions) -> AsyncGenerator[RowCheckPart]:
        """Yield the `CheckedTable` first, then every row once, the sample and the findings, in any order.

        Raises:
            CorruptError: files of the rows are missing.
            NotFoundError: no such collection.
        """
        ...

    def check_media(self, *, remove: bool) -> AsyncGenerator[Finding]:
        """Yield the objects that no row refers to; `remove` removes them."""
        ...

    def watch_changes(self, collection: str, after: str) -> AsyncGenerator[RowChanges]:
        """Yield the changes after the version `after`, without end."""
        ...


class RowEraser(Protocol):
    """Removes rows from every version."""

    async def get_media_hashes(self, collection: str, ids: Sequence[str]) -> Mapping[str, str]:
        """Return the media hash of each of `ids` that exists, "" for an item without media."""
        ...

    async def delete(self, collection: str, ids: Sequence[str]) -> str:
        """Delete rows; return the token of the first version without them."""
        ...

    async def purge(self, collection: str, ids: Sequence[str], sha256s: Sequence[str]) -> PurgeResult:
        """Remove deleted rows from older versions, and the objects of `sha256s` to which nothing else refers."""
        ...


class RowRestorer(Protocol[RowView_contra, ResultView_co]):
    """Writes rows as received."""

    async def restore(
        self, collection: str, rows: Sequence[RowView_contra], fingerprints: Mapping[str, str]
    ) -> Sequence[ResultView_co]:
        """Commit `rows` in one version; return the outcome of each, in order.

        Raises:
            PreconditionError: a fingerprint differs from its space's; nothing is written.
        """
        ...
