"""How a space is indexed, as the API's message and as values."""

from medley.v1 import index_config_pb2 as pb
from services.common.errors import ArgumentError
from services.common.index_config import Exact, Hnsw, IndexConfig, Ivf, ProductCodes, VectorStorage

_DEFAULT = IndexConfig()


def from_message(message: pb.IndexConfig) -> IndexConfig:
    """Return what `message` says, its zeros as the defaults they stand for; numbers are not checked.

    Raises:
        ArgumentError: a storage is none of the API's.
    """
    return IndexConfig(
        _kind(message),
        message.exact_share or _DEFAULT.exact_share,
        message.recall_floor or _DEFAULT.recall_floor,
    )


def to_message(config: IndexConfig) -> pb.IndexConfig:
    """Return `config` as the API's message, every default spelt out."""
    message = pb.IndexConfig(exact_share=config.exact_share, recall_floor=config.recall_floor)
    match config.kind:
        case Exact(storage):
            message.exact.storage = _storage_number(storage)
        case Hnsw(neighbours, build_candidates, search_candidates, storage):
            message.hnsw.neighbours = neighbours
            message.hnsw.build_candidates = build_candidates
            message.hnsw.search_candidates = search_candidates
            message.hnsw.storage = _storage_number(storage)
        case Ivf(lists, probes, coding):
            message.ivf.lists, message.ivf.probes = lists or 0, probes or 0
            if isinstance(coding, ProductCodes):
                message.ivf.product_bytes = coding.size
            else:
                message.ivf.storage = _storage_number(coding)
    return message


def _kind(message: pb.IndexConfig) -> Exact | Hnsw | Ivf:
    match message.WhichOneof("kind"):
        case "hnsw":
            hnsw, default = message.hnsw, Hnsw()
            return Hnsw(
                hnsw.neighbours or default.neighbours,
                hnsw.build_candidates or default.build_candidates,
                hnsw.search_candidates or default.search_candidates,
                _storage("hnsw", hnsw.storage),
            )
        case "ivf":
            ivf = message.ivf
            coded = ivf.WhichOneof("coding") == "product_bytes"
            coding = ProductCodes(ivf.product_bytes) if coded else _storage("ivf", ivf.storage)
            return Ivf(ivf.lists or None, ivf.probes or None, coding)
        case _:
            return Exact(_storage("exact", message.exact.storage))


def _storage(kind: str, number: int) -> VectorStorage:
    if number == pb.VECTOR_STORAGE_UNSPECIFIED:
        return VectorStorage.INT8
    if number not in pb.VectorStorage.values():
        raise ArgumentError(f"index.{kind}.storage", number, "is no VectorStorage")
    return VectorStorage(pb.VectorStorage.Name(pb.VectorStorage.ValueType(number)).removeprefix("VECTOR_STORAGE_"))


def _storage_number(storage: VectorStorage) -> pb.VectorStorage.ValueType:
    return pb.VectorStorage.Value(f"VECTOR_STORAGE_{storage.value}")
