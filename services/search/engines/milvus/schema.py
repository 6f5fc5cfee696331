"""What is kept of a space in Milvus, under which name, and by which index it is found."""

import math
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from pymilvus import CollectionSchema, DataType, MilvusClient

from services.common.index_config import Exact, Hnsw, IndexConfig, Ivf, ProductQuantization, VectorStorage
from services.common.names import MAX_ID_BYTES
from services.common.vectors import Metric
from services.search.core.change_feed import Space
from services.search.engines.milvus.metadata_encoding import MAX_BOUNDS_BYTES, MAX_TOKENS, TOKEN_BYTES

FOREVER = 2**62
"""The round in which a row dies that lives."""

FIELDS = ("row", "item", "id", "spaces", "born", "died", "tokens", "bounds", "vector")
RESULT_FIELDS = ("row", "id", "spaces", "vector")

_KEY_BYTES = 64
_SPACES_BYTES = 2048
_OTHER_BYTES = 512


def row_bytes(dimensions: int) -> int:
    """Return about how large a row is that is read for an answer."""
    return 4 * dimensions + _OTHER_BYTES


def written_bytes(dimensions: int) -> int:
    """Return how large a row is at most when it is written, but for few."""
    return row_bytes(dimensions) + MAX_BOUNDS_BYTES // 8


def new_name(prefix: str, uid: str, space: str) -> str:
    """Return a name for a space's rows that nothing has yet."""
    return f"{name_prefix(prefix, uid)}{space}_{uuid4().hex[:8]}"


def name_prefix(prefix: str, uid: str) -> str:
    """Return what the names of everything kept of a collection begin with."""
    return f"{prefix}_{uid}_"


def schema_of(space: Space) -> CollectionSchema:
    """Return the schema of a space's rows.

    A row is an item in the rounds from `born` on and before `died`: an item that is written again gets another row.
    `item` is a hash of the id, `row` that and the round.
    """
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("row", DataType.VARCHAR, is_primary=True, max_length=_KEY_BYTES)
    schema.add_field("item", DataType.VARCHAR, max_length=_KEY_BYTES)
    schema.add_field("id", DataType.VARCHAR, max_length=MAX_ID_BYTES)
    schema.add_field("spaces", DataType.VARCHAR, max_length=_SPACES_BYTES)
    schema.add_field("born", DataType.INT64)
    schema.add_field("died", DataType.INT64)
    tokens = {"element_type": DataType.VARCHAR, "max_capacity": MAX_TOKENS, "max_length": TOKEN_BYTES}
    schema.add_field("tokens", DataType.ARRAY, **tokens)
    schema.add_field("bounds", DataType.JSON)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=space.dimensions)
    return schema


def metric_of(metric: Metric) -> str:
    """Return Milvus's name of a metric; vectors are kept at length 1 under cosine, so their product is the cosine."""
    return "L2" if metric is Metric.EUCLIDEAN else "IP"


def indexes_of(space: Space, vectors: int, *, gpu: bool, lite: bool) -> Mapping[str, Mapping[str, Any]]:
    """Return the indexes of a space of about `vectors`, by field. Lite reads its few rows one by one anyway."""
    kind, params = _vector_index(space.config, vectors, gpu=gpu)
    found: dict[str, Mapping[str, Any]] = {
        "vector": {"index_type": kind, "metric_type": metric_of(space.metric), "params": params}
    }
    if not lite:
        found |= {name: {"index_type": "INVERTED"} for name in ("item", "tokens")}
    return found


def engine_of(config: IndexConfig, *, gpu: bool) -> str:
    """Return the engine's name, as the API tells it."""
    kind, _ = _vector_index(config, 0, gpu=gpu)
    return f"milvus-{kind.lower().replace('_', '-')}"


def search_params(config: IndexConfig, vectors: int, limit: int) -> dict[str, Any]:
    """Return how far an index of about `vectors` is searched for `limit` rows."""
    match config.kind:
        case Exact():
            return {}
        case Hnsw(ef_search=candidates):
            return {"ef": max(candidates, limit), "itopk_size": max(candidates, limit)}
        case Ivf(nlist, nprobe):
            number = nlist or _lists(vectors)
            return {"nprobe": min(number, nprobe or max(8, number // 16))}


def _vector_index(config: IndexConfig, vectors: int, *, gpu: bool) -> tuple[str, dict[str, Any]]:
    match config.kind:
        case Exact():
            return ("GPU_BRUTE_FORCE" if gpu else "FLAT"), {}
        case Hnsw(m) if gpu:
            return "GPU_CAGRA", {"graph_degree": m, "intermediate_graph_degree": 2 * m}
        case Hnsw(m, ef_construction, _, storage):
            graph = {"M": m, "efConstruction": ef_construction}
            if storage is VectorStorage.FLOAT32:
                return "HNSW", graph
            return "HNSW_SQ", {**graph, "sq_type": "SQ8" if storage is VectorStorage.INT8 else "FP16"}
        case Ivf(nlist, _, coding):
            lists = {"nlist": nlist or _lists(vectors)}
            if isinstance(coding, ProductQuantization):
                return ("GPU_IVF_PQ" if gpu else "IVF_PQ"), {**lists, "m": coding.size, "nbits": 8}
            if gpu or coding is not VectorStorage.INT8:
                return ("GPU_IVF_FLAT" if gpu else "IVF_FLAT"), lists
            return "IVF_SQ8", lists


def _lists(vectors: int) -> int:
    return max(1, min(65_536, round(4 * math.sqrt(vectors))))
