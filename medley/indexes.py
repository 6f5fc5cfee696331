"""Index configurations of a space, and the status of indexes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

VectorStorage = Literal["float32", "float16", "int8"]
"""Type of the vectors that a search scans first; candidates are always ranked by float32 vectors."""

ExactStorage = Literal["float32", "int8"]

IndexState = Literal["ready", "building", "degraded", "failed", "waiting"]


@dataclass(frozen=True, slots=True)
class ExactIndex:
    """Every candidate is compared: recall is 1, under filters too. `storage` defaults to the server's choice."""

    storage: ExactStorage | None = None
    kind: Literal["exact"] = field(default="exact", init=False)


@dataclass(frozen=True, slots=True)
class HnswIndex:
    """HNSW graph: fast over many vectors, recall a little below 1. 0 and None stand for the server's defaults.

    A larger `m` (M) gives better recall and takes more memory, a larger `ef_construction` (efConstruction) gives a
    better graph and a slower build, a larger `ef_search` (efSearch) gives better recall and slower searches. If a
    filter leaves at most the share `exact_below_selectivity` of the vectors, they are compared exactly; while the
    measured recall is below `recall_floor`, all are.
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
    """Inverted file of `nlist` lists, of which a search reads the `nprobe` nearest. 0 and None: the server's defaults.

    With `product_bytes` vectors are product-quantized to that many bytes each, instead of one number per dimension as
    `storage` says. `exact_below_selectivity` and `recall_floor` are as in `HnswIndex`.

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
    """Mean recall at 10 of a number of approximate queries that were repeated exactly.

    Their filters left more than the share `share_above` of the vectors, up to `share_up_to`; both are 1 without a
    filter.
    """

    share_above: float
    share_up_to: float
    recall: float
    queries: int


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """Status of the index of one space; it is current if `version` is the collection's.

    `config` is the configuration to build, `state` its progress, `note` an explanation for people. `lag_seconds` is the
    time since the store is known to hold a version that is not applied yet.
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
    """Return the names of the options of an index of `kind`.

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
    if unknown := sorted(options.keys() - set(known)):
        raise ValueError(f"an {kind} index has no {', '.join(unknown)}; it has {', '.join(known)}")
    return KINDS[kind](**options)
