"""How a space is indexed, as a caller chooses it, and how the indexes are."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

VectorStorage = Literal["float32", "float16", "int8"]
"""How vectors lie in the memory that a search reads first; what is found is ranked by float32 vectors in any case."""

ExactStorage = Literal["float32", "int8"]

IndexState = Literal["ready", "building", "degraded", "failed", "waiting"]


@dataclass(frozen=True, slots=True)
class ExactIndex:
    """Every candidate is compared: recall is 1, under filters too. `storage` is chosen by the server when left out."""

    storage: ExactStorage | None = None
    kind: Literal["exact"] = field(default="exact", init=False)


@dataclass(frozen=True, slots=True)
class HnswIndex:
    """A graph is walked: fast over many vectors, recall a little below 1. What is 0 or None is the server's choice.

    More `m` (M) give better recall and take more memory, more `ef_construction` (efConstruction) a better
    graph that is slower to build, more `ef_search` (efSearch) better recall that is slower to have. Where a
    filter leaves up to `exact_below_selectivity` of the vectors they are compared exactly, and where recall falls below
    `recall_floor` all are, until it recovers.
    """

    m: int = 0
    ef_construction: int = 0
    ef_search: int = 0
    storage: VectorStorage | None = None
    exact_below_selectivity: float = 0.0
    recall_floor: float = 0.0
    kind: Literal["hnsw"] = field(default="hnsw", init=False)


@dataclass(frozen=True, slots=True)
class IvfIndex:
    """Vectors lie in `nlist`, and a search reads the `nprobe` nearest ones. What is 0 or None is the server's choice.

    `product_bytes` keeps vectors as product codes of so many bytes each, instead of one number a dimension in
    `storage`. `exact_below_selectivity` and `recall_floor` are as in `HnswIndex`.

    Raises:
        ValueError: both `storage` and `product_bytes` are given.
    """

    nlist: int = 0
    nprobe: int = 0
    storage: VectorStorage | None = None
    product_bytes: int = 0
    exact_below_selectivity: float = 0.0
    recall_floor: float = 0.0
    kind: Literal["ivf"] = field(default="ivf", init=False)

    def __post_init__(self) -> None:
        if self.storage and self.product_bytes:
            raise ValueError("an IVF index takes either storage or product_bytes")


IndexConfig = ExactIndex | HnswIndex | IvfIndex
KINDS: Mapping[str, type[IndexConfig]] = {"exact": ExactIndex, "hnsw": HnswIndex, "ivf": IvfIndex}


@dataclass(frozen=True, slots=True)
class IndexRecall:
    """Mean recall at 10 over so many approximate queries that were repeated exactly.

    Their filters left more than `share_above` of the vectors, up to `share_up_to`; both are 1 for no filter.
    """

    share_above: float
    share_up_to: float
    recall: float
    queries: int


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """State of the index of one space; current where `version` is the collection's.

    `config` is how the space is to be indexed, `state` how far that is, `note` why for people. For `lag_seconds` the
    store has been known to hold a version that is not applied yet.
    """

    collection: str
    space: str
    engine: str
    vectors: int
    memory_bytes: int
    version: str
    config: IndexConfig | None = None
    state: IndexState | None = None
    note: str = ""
    recall: tuple[IndexRecall, ...] = ()
    lag_seconds: float = 0.0


def index_options(kind: str) -> tuple[str, ...]:
    """Return the names of what can be chosen of an index of `kind`.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown index {kind!r}; there are {', '.join(KINDS)}")
    return tuple(each.name for each in fields(KINDS[kind]) if each.init)


def index_config(kind: str, **options: Any) -> IndexConfig:
    """Return the index of `kind` with `options` by name.

    Raises:
        ValueError: there is no such kind, or it has no such option.
    """
    known = index_options(kind)
    if strangers := sorted(options.keys() - set(known)):
        raise ValueError(f"an {kind} index has no {', '.join(strangers)}; it has {', '.join(known)}")
    return KINDS[kind](**options)
