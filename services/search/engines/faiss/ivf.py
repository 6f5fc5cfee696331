"""Inverted files by FAISS: flat, scalar-quantised or product-quantised lists.

Lists are found by k-means, written out here because FAISS's own cannot be stopped on the way. Vectors of unequal length
under dot product are lifted to equal ones for that: by product alone, the longest centroids would take every query.
"""

import math
from collections.abc import Generator
from dataclasses import replace
from typing import Any, Self

import faiss
import numpy as np

from services.common.index_config import MAX_LISTS, Ivf, ProductQuantization, VectorStorage
from services.common.vectors import Matrix, Metric
from services.search.core.candidate_index import AnnKind, Sampler
from services.search.core.vector_index import Numbers
from services.search.engines.faiss.candidate_index import FaissAnnBuilder, FaissCandidateIndex, Ground, Layout, Threads

LISTS_A_ROOT = 4
LEAST_PER_LIST = 8
LEAST_FOR_PRODUCTS = 4096
SAMPLE_PER_LIST = 40
SAMPLE_AT_MOST = 2**18
SAMPLE_FOR_CODES = 2**14
ROUNDS = 10
PROBED_SHARE = 1 / 16
PROBES_AT_LEAST = 8
SPARE_CANDIDATES = 16
SPARE_SHARE = 1 / 4
PRODUCT_CANDIDATES = 10
_ASSIGNED_AT_A_TIME = 4096
_faiss: Any = faiss  # its stub knows only a part of it
_CODES = {
    VectorStorage.FLOAT16: faiss.ScalarQuantizer.QT_fp16,
    VectorStorage.INT8: faiss.ScalarQuantizer.QT_8bit,
}


class FaissIvf(FaissCandidateIndex):
    """`CandidateIndex` over an inverted file."""

    engine = "faiss-ivf"

    def with_search_params(self, kind: AnnKind) -> Self | None:
        if not isinstance(kind, Ivf) or replace(kind, nprobe=self._kind.nprobe) != self._kind:
            return None
        return self._over(self._index, self._slots, replace(self._ground, kind=kind))

    @property
    def _kind(self) -> Ivf:
        assert isinstance(self._ground.kind, Ivf)
        return self._ground.kind

    def _wanted(self, top_k: int) -> int:
        if isinstance(self._kind.coding, ProductQuantization):
            return PRODUCT_CANDIDATES * max(top_k, SPARE_CANDIDATES)
        return top_k + max(SPARE_CANDIDATES, int(top_k * SPARE_SHARE))

    def _parameters(self, reach: int, effort: float) -> Any:
        """Those around a query lie in lists around it, whose number grows with less than that of the vectors."""
        lists = self._index.nlist
        probes = self._kind.nprobe or max(PROBES_AT_LEAST, math.ceil(lists * PROBED_SHARE))
        return _faiss.SearchParametersIVF(nprobe=min(lists, math.ceil(probes * math.sqrt(effort))))

    def _index_bytes(self) -> int:
        centroids = self._index.nlist * self._ground.layout.width * 4
        table = self._index.precomputed_table.size() * 4 if isinstance(self._kind.coding, ProductQuantization) else 0
        return int(self._index.ntotal * (self._index.code_size + 8) + centroids + table)


def min_ivf_vectors(kind: Ivf) -> int:
    """Return how many vectors an inverted file needs at least."""
    lists = kind.nlist or LISTS_A_ROOT * (LISTS_A_ROOT * LEAST_PER_LIST)  # as many as that number of vectors has
    return max(LEAST_PER_LIST * lists, LEAST_FOR_PRODUCTS if isinstance(kind.coding, ProductQuantization) else 0)


def new_ivf_builder(
    kind: Ivf, metric: Metric, count: int, sampler: Sampler, threads: Threads
) -> Generator[float, None, FaissAnnBuilder]:
    """Return an empty draft of an inverted file of about `count` vectors."""
    lists = kind.nlist or min(MAX_LISTS, math.ceil(LISTS_A_ROOT * math.sqrt(count)))
    sample = sampler(min(SAMPLE_AT_MOST, max(SAMPLE_FOR_CODES, SAMPLE_PER_LIST * lists)))
    layout = Layout.of(sample, metric, lifted=_lifted(kind) if metric is Metric.DOT_PRODUCT else 0)
    laid = layout.vectors(sample)
    by_angle = metric is Metric.COSINE
    quantizer = faiss.IndexFlatIP(layout.width) if by_angle else faiss.IndexFlatL2(layout.width)
    quantizer.add((yield from _centroids(laid, lists, by_angle=by_angle)))
    index = _lists(quantizer, layout, lists, kind.coding)
    index.train(laid[:SAMPLE_FOR_CODES])
    yield 0.0
    return FaissAnnBuilder(index, Ground(kind, layout, count), FaissIvf, threads)


def _lists(quantizer: Any, layout: Layout, lists: int, coding: VectorStorage | ProductQuantization) -> Any:
    sizes = (quantizer, layout.width, lists)
    match coding:
        case ProductQuantization(size):
            index = _faiss.IndexIVFPQ(*sizes, size, 8, layout.faiss_metric)
            index.by_residual = not layout.lifted  # whose lists are chosen by another metric than they are scanned by
            index.pq.cp.niter = ROUNDS
            index.pq.cp.min_points_per_centroid = 1
            return index
        case VectorStorage.FLOAT32:
            return _faiss.IndexIVFFlat(*sizes, layout.faiss_metric)
        case _:
            return _faiss.IndexIVFScalarQuantizer(*sizes, _CODES[coding], layout.faiss_metric, False)


def _lifted(kind: Ivf) -> int:
    """Return the dimensions that lifting adds: one, or one for each byte of a product code."""
    return kind.coding.size if isinstance(kind.coding, ProductQuantization) else 1


def _centroids(sample: Matrix, lists: int, *, by_angle: bool) -> Generator[float, None, Matrix]:
    """Return the means that k-means finds for `sample`, in random order; with `by_angle` they have length 1."""
    centroids = sample[np.arange(lists) % len(sample)]
    for _ in range(ROUNDS):
        sums, counts = np.zeros(centroids.shape), np.zeros(lists, np.int64)
        quantizer = faiss.IndexFlatIP(sample.shape[1]) if by_angle else faiss.IndexFlatL2(sample.shape[1])
        quantizer.add(centroids)
        for begin in range(0, len(sample), _ASSIGNED_AT_A_TIME):
            part = sample[begin : begin + _ASSIGNED_AT_A_TIME]
            _, nearest = quantizer.search(part, 1)
            _gather(part, nearest[:, 0], sums, counts)
            yield 0.0
        filled = counts > 0
        centroids[filled] = (sums[filled] / counts[filled, None]).astype(np.float32)
        centroids[~filled] = sample[np.random.default_rng().integers(len(sample), size=lists - filled.sum())]
        if by_angle:
            faiss.normalize_L2(centroids)
    return centroids


def _gather(part: Matrix, nearest: Numbers, sums: Any, counts: Numbers) -> None:
    """Add each row of `part` to the sum of the list it is nearest to."""
    order = np.argsort(nearest, kind="stable")
    lists, begins, numbers = np.unique(nearest[order], return_index=True, return_counts=True)
    sums[lists] += np.add.reduceat(part[order].astype(np.float64), begins)
    counts[lists] += numbers
