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
"""A part of an item that a reader may ask for; without a choice, text, metadata and media come."""

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
"""What a check found wrong; docs/operations.md says what each means, and how it is repaired."""

Vector = NDArray[np.float32]
VectorLike = Sequence[float] | NDArray[np.floating]
Where = Mapping[str, object] | str
"""A filter in the JSON spelling, as a dict or as its text: `{"colour": "green", "price": {"$lt": 50}}`."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Space:
    """A named vector column of a collection.

    Without `model`, callers bring vectors of `dimensions` components with every item. `metric` and `sources` (which
    content of an item is embedded: the first that it has) are chosen to suit the model when left out. `fingerprint` is
    set by the server. `index` is how the vectors are indexed, exactly when left out; `update_space` changes it.
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
    """A name for a version of a collection, which is kept as long as the name is; `version` is its token."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Media:
    """A stored object, named by the SHA-256 of its bytes; width and height are 0 where they do not apply.

    `data` holds the bytes where the field "media_data" was asked for and the server sends them inline.
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
    """A stored item. Text, metadata, media and vectors are None or empty where they were not asked for.

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
    """What became of the item sent as number `sequence`, counted from 0: committed, or refused for `error`."""

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
    """The answer about one id: its item, or why there is none."""

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
    """A query in one space, or, where `space` is empty, in every space whose model takes it.

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
    """What the arm number `arm` of `SearchResult.arms` says of a hit: its rank from 1 and its raw score."""

    arm: int
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class ArmReport:
    """What one arm did: where it looked, among how many candidates, how, and for how long.

    `compared` is how many vectors had their score computed.
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
    """An item found, with its rank from 1 and its fused score, which orders this answer and means nothing beyond it."""

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
    """Hits, best first, the arms that found them, and the version the answer holds for. Iterates over the hits."""

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
    """A model of the catalogue."""

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
    """What the services are doing."""

    services: tuple[ServiceStatus, ...]
    models: tuple[Model, ...]
    collections: tuple[CollectionStatus, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found wrong; what does not concern it is empty.

    `not_repaired_because` says why it was not repaired although that was asked for.
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
    """Something that was looked at for a receipt; `gone` when nothing of the item is there, `detail` says how so."""

    what: str
    gone: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was removed of an item and looked at to be sure; `complete` when nothing is left.

    `existed` is False where there was no such item; all was looked at even so. `deleted_version` is the first version
    without it; no version older than `purged_version` can be read, but for those with a tag.
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
    """How far the check of a collection has come; `collection` is empty for the objects that belong to none."""

    collection: str
    version: str
    rows_total: int
    rows: int
    media: int
    media_read: int
    media_bytes_read: int
    vectors_compared: int
    done: bool
