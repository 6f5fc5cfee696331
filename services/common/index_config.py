"""The index configuration of a space, and its validation."""

from dataclasses import dataclass, field
from enum import Enum

from services.common.errors import ArgumentError

MAX_LISTS = 65_536


class VectorStorage(Enum):
    """How vectors are stored for the first pass of a search; a value is the suffix of the API's name."""

    FLOAT32 = "FLOAT32"
    FLOAT16 = "FLOAT16"
    INT8 = "INT8"


@dataclass(frozen=True, slots=True)
class Exact:
    """An exact index: every candidate is compared."""

    storage: VectorStorage = VectorStorage.INT8


@dataclass(frozen=True, slots=True)
class Hnsw:
    """A graph index (HNSW); `medley.v1.HnswIndex` documents the parameters."""

    m: int = 32
    ef_construction: int = 200
    ef_search: int = 128
    storage: VectorStorage = VectorStorage.INT8


@dataclass(frozen=True, slots=True)
class ProductQuantization:
    """Product quantisation to `size` bytes a vector."""

    size: int


@dataclass(frozen=True, slots=True)
class Ivf:
    """An inverted file (IVF); `nlist` and `nprobe` None: chosen from the number of vectors."""

    nlist: int | None = None
    nprobe: int | None = None
    coding: VectorStorage | ProductQuantization = VectorStorage.INT8


@dataclass(frozen=True, slots=True)
class IndexConfig:
    """The index configuration of a space; `medley.v1.IndexConfig` documents the two shares, both 0 to 1."""

    kind: Exact | Hnsw | Ivf = field(default_factory=Exact)
    exact_below_selectivity: float = 0.1
    recall_floor: float = 0.9

    @property
    def scanned(self) -> VectorStorage:
        """Storage for exact scans: beside an approximate index float32, as few vectors do not justify a copy."""
        return self.kind.storage if isinstance(self.kind, Exact) else VectorStorage.FLOAT32


def validate_index_config(config: IndexConfig, dimensions: int) -> IndexConfig:
    """Return `config` if it is valid for a space of `dimensions`.

    Raises:
        ArgumentError: a number is out of its range.
    """
    _check("index.exact_below_selectivity", config.exact_below_selectivity, 0, 1)
    _check("index.recall_floor", config.recall_floor, 0, 1)
    match config.kind:
        case Exact(VectorStorage.FLOAT16):
            raise ArgumentError("index.exact.storage", "float16", "must be int8 or float32")
        case Hnsw(m, ef_construction, ef_search):
            _check("index.hnsw.m", m, 4, 128)
            _check("index.hnsw.ef_construction", ef_construction, 8, 2000)
            _check("index.hnsw.ef_search", ef_search, 8, 10_000)
        case Ivf(nlist, nprobe, coding):
            _check("index.ivf.nlist", 1 if nlist is None else nlist, 1, MAX_LISTS)
            _check("index.ivf.nprobe", 1 if nprobe is None else nprobe, 1, nlist or MAX_LISTS)
            _check_coding(coding, dimensions)
    return config


def _check_coding(coding: VectorStorage | ProductQuantization, dimensions: int) -> None:
    if isinstance(coding, ProductQuantization):
        _check("index.ivf.product_bytes", coding.size, 1, dimensions)
        if dimensions % coding.size:
            raise ArgumentError("index.ivf.product_bytes", coding.size, f"must divide the {dimensions} dimensions")


def _check(name: str, value: float, minimum: float, maximum: float) -> None:
    if not minimum <= value <= maximum:  # also refuses NaN
        raise ArgumentError(name, value, f"must be {minimum} to {maximum}")
