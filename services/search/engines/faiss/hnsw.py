"""Graphs by FAISS's HNSW.

Under cosine and dot product the graph is walked by inner product: for vectors of unequal length that finds far more
than the usual reduction to distances, in which a few long vectors leave the others no room to differ.
"""

from dataclasses import replace
from typing import Any, Self

import faiss

from services.common.index_config import Hnsw, VectorStorage
from services.common.vectors import Metric
from services.search.core.candidate_index import AnnKind, Sampler
from services.search.engines.faiss.candidate_index import FaissAnnBuilder, FaissCandidateIndex, Ground, Layout, Threads

SAMPLE = 2**15
SPARE_CANDIDATES = 16
SPARE_SHARE = 1 / 4
_faiss: Any = faiss  # its stub knows only a part of it
_CODES = {
    VectorStorage.FLOAT16: faiss.ScalarQuantizer.QT_fp16,
    VectorStorage.INT8: faiss.ScalarQuantizer.QT_8bit,
}


class FaissHnsw(FaissCandidateIndex):
    """`CandidateIndex` over a graph."""

    engine = "faiss-hnsw"

    def with_search_params(self, kind: AnnKind) -> Self | None:
        known = self._kind
        if not isinstance(kind, Hnsw) or replace(kind, ef_search=known.ef_search) != known:
            return None
        return self._over(self._index, self._slots, replace(self._ground, kind=kind))

    @property
    def _kind(self) -> Hnsw:
        assert isinstance(self._ground.kind, Hnsw)
        return self._ground.kind

    def _wanted(self, top_k: int) -> int:
        return top_k + max(SPARE_CANDIDATES, int(top_k * SPARE_SHARE))

    def _parameters(self, reach: int, effort: float) -> Any:
        parameters: Any = _faiss.SearchParametersHNSW()
        parameters.efSearch = max(self._kind.ef_search, reach)
        return parameters

    def _index_bytes(self) -> int:
        graph = self._index.hnsw
        links = graph.neighbors.size() * 4 + graph.offsets.size() * 8 + graph.levels.size() * 4
        return int(self._index.storage.sa_code_size() * self._index.ntotal + links)


def new_hnsw_builder(kind: Hnsw, metric: Metric, count: int, sampler: Sampler, threads: Threads) -> FaissAnnBuilder:
    """Return an empty draft of a graph of about `count` vectors."""
    sample = sampler(SAMPLE)
    layout = Layout.of(sample, metric)
    index: Any
    if kind.storage is VectorStorage.FLOAT32:
        index = _faiss.IndexHNSWFlat(layout.width, kind.m, layout.faiss_metric)
    else:
        index = _faiss.IndexHNSWSQ(layout.width, _CODES[kind.storage], kind.m, layout.faiss_metric)
        index.train(layout.vectors(sample))
    index.hnsw.efConstruction = kind.ef_construction
    learnt_from = count if kind.storage is VectorStorage.INT8 else 0
    return FaissAnnBuilder(index, Ground(kind, layout, learnt_from), FaissHnsw, threads)
