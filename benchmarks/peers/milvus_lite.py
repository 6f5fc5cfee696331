"""Milvus Lite with its client, FLAT and HNSW."""

import time
from importlib.metadata import version
from pathlib import Path

from pymilvus import DataType, MilvusClient

from benchmarks.peers.peer import EF_CONSTRUCTION, EF_SEARCH, ROWS_PER_WRITE, TOP_K, M
from benchmarks.search.conditions import Condition
from benchmarks.search.corpus import Corpus, Matrix

COLLECTION = "items"
SETTLE_SECONDS = 25.0


class MilvusLite:
    """`Peer`."""

    modes = ("FLAT", "HNSW")
    version = f"milvus-lite {version('milvus-lite')}"

    def __init__(self, folder: Path, mode: str) -> None:
        self._mode = mode
        self._client = MilvusClient(str(folder / "milvus.db"))

    def load(self, corpus: Corpus) -> None:
        self._client.create_collection(COLLECTION, schema=self._schema(corpus), index_params=self._index())
        for begin in range(0, len(corpus.vectors), ROWS_PER_WRITE):
            metadata = corpus.metadata(begin, begin + ROWS_PER_WRITE)
            empty = dict.fromkeys(corpus.fields, "")
            rows = [
                {"id": row, "vector": corpus.vectors[row], **empty, **fields}
                for row, fields in enumerate(metadata, start=begin)
            ]
            self._client.insert(COLLECTION, rows)
        self._client.flush(COLLECTION)
        self._client.load_collection(COLLECTION)
        self._settle(corpus.queries[0])

    def search(self, query: Matrix, condition: Condition | None) -> list[int]:
        where = f'{condition.field} == "{condition.value}"' if condition else ""
        parameters = {"params": {"ef": EF_SEARCH}}
        (hits,) = self._client.search(COLLECTION, [query], limit=TOP_K, filter=where, search_params=parameters)
        return [hit["id"] for hit in hits]

    def stop(self) -> None:
        self._client.close()

    def _settle(self, query: Matrix) -> None:
        """Search until the graph is used: Milvus Lite reports it as finished earlier, and scans until then."""
        settled = time.monotonic() + (SETTLE_SECONDS if self._mode == "HNSW" else 0)
        while time.monotonic() < settled:
            self.search(query, None)

    def _schema(self, corpus: Corpus) -> object:
        schema = self._client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=corpus.vectors.shape[1])
        for name in corpus.fields:
            schema.add_field(name, DataType.VARCHAR, max_length=100)
        return schema

    def _index(self) -> object:
        parameters = {"M": M, "efConstruction": EF_CONSTRUCTION} if self._mode == "HNSW" else {}
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type=self._mode, metric_type="COSINE", params=parameters)
        return index
