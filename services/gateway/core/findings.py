"""What a check of a collection finds, and what the store tells it of rows and media."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto


class FindingKind(Enum):
    """What is wrong; see `medley.v1.FindingKind` for what each means and how it is repaired."""

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
    """One thing that is wrong; names are empty where nothing of their kind is concerned.

    `detail` and `not_repaired_because` are for people to read; the latter is empty where a repair succeeded or was not
    asked for.
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

    `media_objects` chosen at random have their bytes compared with their hash, or all with `all_media`; `vector_sample`
    rows come with their vectors. `remove_damaged_media` removes damaged objects.
    """

    media_objects: int = 0
    all_media: bool = False
    vector_sample: int = 0
    remove_damaged_media: bool = False


@dataclass(frozen=True, slots=True)
class CheckedTable:
    """What is checked: the rows as of `version`, and how many there are."""

    version: str
    rows: int


@dataclass(frozen=True, slots=True)
class CheckedRows:
    """Some rows: for each id the spaces in which it has a vector, bit i for the collection's space i."""

    ids: Sequence[str]
    spaces: Sequence[int]


@dataclass(frozen=True, slots=True)
class CheckedVectors:
    """A row of the sample and its vectors by space, little-endian float32, unchecked."""

    id: str
    vectors: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class CheckedMedia:
    """How far reading media has come: objects looked for, objects read, bytes read."""

    objects: int
    objects_read: int
    bytes_read: int


RowCheckPart = CheckedTable | CheckedRows | CheckedVectors | CheckedMedia | Finding
