"""What the client takes and returns: plain, immutable values."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from medley.errors import Error
from medley.indexes import IndexConfig, IndexStatus

ContentType = Literal["text", "image", "video", "audio"]
Metric = Literal["cosine", "dot_product", "euclidean"]
SearchMode = Literal["exact", "approximate"]
Field = Literal["text", "metadata", "media", "media_data", "vectors"]
"""A field of an item that a reader may request; the default is text, metadata and media."""

FindingKind = Literal[
    "media_missing",
    "media_damaged",
    "media_unreferenced",
    "vector_invalid",
    "vector_missing",
    "spaces_differ",
    "fingerprint_foreign",
    "index_missing",
    "index_extra",
    "index_differs",
    "not_checked",
    "rows_lost",
]
"""The kind of a finding; docs/operations.md says what each means, and how it is repaired."""

Vector = NDArray[np.float32]
VectorLike = Sequence[float] | NDArray[np.floating]
Where = Mapping[str, object] | str
"""A filter as a dict or as JSON text: `{"colour": "green", "price": {"$lt": 50}}`."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Space:
    """A named vector column of a collection.

    Without `model`, callers supply a vector of `dimensions` components with every item. `metric` and `sources` (the
    content types to embed: the first that an item has) default to those of the model. `fingerprint` is set by the
    server. `index` is how the vectors are indexed, exactly by default; `update_space` changes it.
    """

    name: str
    model: str = ""
    dimensions: int = 0
    metric: Metric | None = None
    sources: tuple[ContentType, ...] = ()
    fingerprint: str = ""
    index: IndexConfig | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """A named set of items and the spaces they are searched in; `version` is its newest commit's token."""

    name: str
    spaces: tuple[Space, ...]
    version: str
    create_time: datetime | None


@dataclass(frozen=True, slots=True)
class Tag:
    """A name for a version of a collection, which is kept until the tag is deleted; `version` is its token."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Media:
    """A stored object, named by the SHA-256 of its bytes; width and height are 0 where they do not apply.

    `data` holds the bytes if the field "media_data" was requested and the server sends them inline.
    """

    sha256: str
    mime_type: str = ""
    size_bytes: int = 0
    width: int = 0
    height: int = 0
    data: bytes | None = field(default=None, repr=False)


Source = bytes | str | os.PathLike[str] | Media
"""Media to send: the bytes of a file, the path of one, or an object stored before by `upload_media`."""

Picture = bytes | str | os.PathLike[str]
"""A picture to search with: the bytes of a file, or the path of one."""


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item to ingest. It has text, media or vectors; `vectors` are for spaces without a model."""

    id: str
    text: str | None = None
    media: Source | None = field(default=None, repr=False)
    metadata: Mapping[str, object] = field(default_factory=dict)
    vectors: Mapping[str, VectorLike] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Item:
    """A stored item. Text, metadata, media and vectors are None or empty if they were not requested.

    `spaces` names the spaces in which it has a vector, `revision` counts its writes from 1.
    """

    id: str
    content_type: ContentType | None
    text: str | None
    media: Media | None
    metadata: Mapping[str, object] | None
    vectors: Mapping[str, Vector] = field(compare=False, repr=False)
    spaces: tuple[str, ...]
    revision: int
    create_time: datetime | None
    update_time: datetime | None


@dataclass(frozen=True, slots=True)
class IngestResult:
    """The result for the item sent as number `sequence`, counted from 0: committed, or refused with `error`."""

    id: str
    sequence: int
    revision: int = 0
    version: str = ""
    error: Error | None = None

    @property
    def ok(self) -> bool:
        """Whether it was committed."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class Lookup:
    """The result for one id: its item, or the error."""

    id: str
    item: Item | None = None
    error: Error | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[Value]):
    """A page of a list; `next_page_token` is empty on the last."""

    values: tuple[Value, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class Arm:
    """A query in one space, or, if `space` is empty, in every space whose model accepts it.

    Raises:
        ValueError: not exactly one of text, image, item and vector is given.
    """

    text: str | None = None
    image: Picture | None = field(default=None, repr=False)
    item: str | None = None
    vector: VectorLike | None = field(default=None, compare=False, repr=False)
    space: str = ""
    weight: float = 1.0

    def __post_init__(self) -> None:
        given = [query for query in (self.text, self.image, self.item, self.vector) if query is not None]
        if len(given) != 1:
            raise ValueError(f"an arm takes one of text, image, item and vector, got {len(given)}")


@dataclass(frozen=True, slots=True)
class ArmScore:
    """Rank, from 1, and raw score of a hit in arm number `arm` of `SearchResult.arms`."""

    arm: int
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class ArmReport:
    """How one arm was searched: its space, mode, number of candidates and duration.

    `compared` is the number of vectors whose score was computed.
    """

    request_arm: int
    space: str
    metric: Metric | None
    weight: float
    mode: SearchMode | None
    candidates: int
    milliseconds: float
    compared: int = 0


@dataclass(frozen=True, slots=True)
class Hit:
    """An item found, with its rank from 1 and its fused score, which is comparable only within one result."""

    rank: int
    score: float
    arms: tuple[ArmScore, ...]
    item: Item

    @property
    def id(self) -> str:
        """Id of the item."""
        return self.item.id


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first, the report of each arm, and the version that was searched. Iterates over the hits."""

    hits: tuple[Hit, ...]
    arms: tuple[ArmReport, ...]
    version: str

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """State of a service; `error` is None while it answers."""

    name: str
    error: Error | None


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the embedder's catalogue."""

    name: str
    dimensions: int
    metric: Metric | None
    inputs: tuple[ContentType, ...]
    fingerprint: str
    summary: str


@dataclass(frozen=True, slots=True)
class CollectionStatus:
    """State of a collection: its items and its indexes."""

    collection: Collection
    items: int
    indexes: tuple[IndexStatus, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """Status of services, models, collections and indexes."""

    services: tuple[ServiceStatus, ...]
    models: tuple[Model, ...]
    collections: tuple[CollectionStatus, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault found by a check; fields that do not apply are empty.

    `not_repaired_because` says why it was not repaired although repair was requested.
    """

    kind: FindingKind | None
    collection: str
    id: str
    space: str
    sha256: str
    detail: str
    repaired: bool
    not_repaired_because: str


@dataclass(frozen=True, slots=True)
class ReceiptCheck:
    """One check of a receipt: `gone` if nothing of the item is left there; `detail` explains."""

    what: str
    gone: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """Record of a permanent deletion and of the checks that followed; `complete` if nothing is left of the item.

    `existed` is False if there was no such item; the checks run even so. `deleted_version` is the first version without
    it; versions older than `purged_version` cannot be read, except those with a tag.
    """

    collection: str
    id: str
    sha256: str
    existed: bool
    complete: bool
    checks: tuple[ReceiptCheck, ...]
    deleted_version: str
    purged_version: str
    time: datetime | None


@dataclass(frozen=True, slots=True)
class CheckProgress:
    """Progress of the check of a collection; `collection` is empty for unreferenced objects."""

    collection: str
    version: str
    rows_total: int
    rows: int
    media: int
    media_read: int
    media_bytes_read: int
    vectors_compared: int
    done: bool
