"""Medley's search service in another process, over gRPC."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.processes import four_processes, ready
from benchmarks.search.conditions import Condition
from benchmarks.search.corpus import Corpus, Matrix
from benchmarks.search.service import Search, Store, channel
from medley.v1 import index_config_pb2


class MedleySearch:
    """`Peer`."""

    modes: Sequence[str] = ("exact", "HNSW")
    version = "Medley"

    def __init__(self, folder: Path, mode: str) -> None:
        self._kind = mode.lower()
        self._stack = ExitStack()
        suite = self._stack.enter_context(four_processes(folder))
        ready(suite)
        self._store = Store(self._stack.enter_context(channel(suite.addresses["store"])))
        self._search = Search(self._stack.enter_context(channel(suite.addresses["search"])))

    def load(self, corpus: Corpus) -> None:
        self._store.create(corpus.vectors.shape[1])
        self._search.reached(corpus.queries[0], self._store.fill(corpus))
        if self._kind == "hnsw":
            self._store.index(index_config_pb2.IndexConfig(hnsw=index_config_pb2.HnswIndex()))
        self._search.ready(self._kind)

    def search(self, query: Matrix, condition: Condition | None) -> list[int]:
        return self._search.search(query, condition)

    def stop(self) -> None:
        self._stack.close()
