"""Conversion of index configurations from and to the API's message."""

from medley.v1 import index_config_pb2 as pb
from services.common.errors import ArgumentError
from services.common.index_config import Exact, Hnsw, IndexConfig, Ivf, ProductQuantization, VectorStorage

_DEFAULT = IndexConfig()


def from_message(message: pb.IndexConfig) -> IndexConfig:
    """Return the configuration in `message`, zeros replaced by defaults; ranges are not validated.

    Raises:
        ArgumentError: a storage is unknown.
    """
    return IndexConfig(
        _kind(message),
        message.exact_below_selectivity or _DEFAULT.exact_below_selectivity,
        message.recall_floor or _DEFAULT.recall_floor,
    )


def to_message(config: IndexConfig) -> pb.IndexConfig:
    """Return `config` as the API's message, with every default written out."""
    message = pb.IndexConfig(exact_below_selectivity=config.exact_below_selectivity, recall_floor=config.recall_floor)
    match config.kind:
        case Exact(storage):
            message.exact.storage = _storage_number(storage)
        case Hnsw(m, ef_construction, ef_search, storage):
            message.hnsw.m = m
            message.hnsw.ef_construction = ef_construction
            message.hnsw.ef_search = ef_search
            message.hnsw.storage = _storage_number(storage)
        case Ivf(nlist, nprobe, coding):
            message.ivf.nlist, message.ivf.nprobe = nlist or 0, nprobe or 0
            if isinstance(coding, ProductQuantization):
                message.ivf.product_bytes = coding.size
            else:
                message.ivf.storage = _storage_number(coding)
    return message


def _kind(message: pb.IndexConfig) -> Exact | Hnsw | Ivf:
    match message.WhichOneof("kind"):
        case "hnsw":
            hnsw, default = message.hnsw, Hnsw()
            return Hnsw(
                hnsw.m or default.m,
                hnsw.ef_construction or default.ef_construction,
                hnsw.ef_search or default.ef_search,
                _storage("hnsw", hnsw.storage),
            )
        case "ivf":
            ivf = message.ivf
            coded = ivf.WhichOneof("coding") == "product_bytes"
            coding = ProductQuantization(ivf.product_bytes) if coded else _storage("ivf", ivf.storage)
            return Ivf(ivf.nlist or None, ivf.nprobe or None, coding)
        case _:
            return Exact(_storage("exact", message.exact.storage))


def _storage(kind: str, number: int) -> VectorStorage:
    if number == pb.VECTOR_STORAGE_UNSPECIFIED:
        return VectorStorage.INT8
    if number not in pb.VectorStorage.values():
        raise ArgumentError(f"index.{kind}.storage", number, "is not a VectorStorage")
    return VectorStorage(pb.VectorStorage.Name(pb.VectorStorage.ValueType(number)).removeprefix("VECTOR_STORAGE_"))


def _storage_number(storage: VectorStorage) -> pb.VectorStorage.ValueType:
    return pb.VectorStorage.Value(f"VECTOR_STORAGE_{storage.value}")
