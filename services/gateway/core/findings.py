"""The findings of an integrity check, and what the store reports of rows and media for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto


class FindingKind(Enum):
    """What is wrong; `medley.v1.FindingKind` says what each kind means and how it is repaired."""

    MEDIA_MISSING = auto()
    MEDIA_DAMAGED = auto()
    MEDIA_UNREFERENCED = auto()
    VECTOR_INVALID = auto()
    VECTOR_MISSING = auto()
    SPACES_DIFFER = auto()
    FINGERPRINT_FOREIGN = auto()
    INDEX_MISSING = auto()
    INDEX_EXTRA = auto()
    INDEX_DIFFERS = auto()
    NOT_CHECKED = auto()
    ROWS_LOST = auto()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong; fields that do not apply are empty.

    `detail` and `not_repaired_because` are for people to read; the latter is empty after a successful repair and when
    none was requested.
    """

    kind: FindingKind
    collection: str = ""
    id: str = ""
    space: str = ""
    sha256: str = ""
    detail: str = ""
    repaired: bool = False
    not_repaired_because: str = ""


@dataclass(frozen=True, slots=True)
class RowCheckOptions:
    """How much of a collection is read.

    The bytes of `media_objects` random objects, or of all with `all_media`, are compared with their hash.
    `vector_sample` random rows are returned with their vectors. `remove_damaged_media` removes damaged objects.
    """

    media_objects: int = 0
    all_media: bool = False
    vector_sample: int = 0
    remove_damaged_media: bool = False


@dataclass(frozen=True, slots=True)
class CheckedTable:
    """The version that is checked and its number of rows."""

    version: str
    rows: int


@dataclass(frozen=True, slots=True)
class CheckedRows:
    """A part of the rows: for each id a bit set of the spaces with a vector, bit i for the collection's space i."""

    ids: Sequence[str]
    spaces: Sequence[int]


@dataclass(frozen=True, slots=True)
class CheckedVectors:
    """A sampled row and its vectors by space, little-endian float32, not validated."""

    id: str
    vectors: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class CheckedMedia:
    """Progress of the media check: objects looked up, objects read, bytes read."""

    objects: int
    objects_read: int
    bytes_read: int


RowCheckPart = CheckedTable | CheckedRows | CheckedVectors | CheckedMedia | Finding
