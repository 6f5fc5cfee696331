"""The floors: raw FAISS in this process. They import no service, so that a ratio says what Medley adds."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.search.corpus import Matrix
from benchmarks.search.truth import TOP_K

NEIGHBOURS, BUILD_CANDIDATES, SEARCH_CANDIDATES = 32, 200, 128  # what Medley's HNSW has unless told otherwise
LISTED_SHARE = 0.05


class RawFlat:
    """`IndexFlatIP`, as few threads as told."""

    def __init__(self, vectors: Matrix) -> None:
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(vectors)

    def search(self, query: Matrix, selector: Any = None) -> list[int]:
        """Return the ten best rows among those selected."""
        faiss.omp_set_num_threads(1)
        make: Any = faiss.SearchParameters  # the stubs know the C++ signatures only
        parameters = make(sel=selector) if selector is not None else None
        return _rows(self._index.search(query[None], TOP_K, params=parameters))

    def batch(self, queries: Matrix, threads: int) -> None:
        """Search for all of `queries` at once."""
        faiss.omp_set_num_threads(threads)
        self._index.search(queries, TOP_K)


class RawHnsw:
    """`IndexHNSWFlat` with the parameters of Medley's default."""

    def __init__(self, vectors: Matrix, threads: int) -> None:
        self._index = faiss.IndexHNSWFlat(vectors.shape[1], NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = BUILD_CANDIDATES
        faiss.omp_set_num_threads(threads)
        self._index.add(vectors)

    def search(self, query: Matrix, selector: Any = None) -> list[int]:
        """Return about the ten best rows among those selected."""
        faiss.omp_set_num_threads(1)
        make: Any = faiss.SearchParametersHNSW  # type: ignore[attr-defined]  # its stubs have half of them
        parameters = make(efSearch=SEARCH_CANDIDATES, sel=selector)
        return _rows(self._index.search(query[None], TOP_K, params=parameters))


def flat_selector(mask: NDArray[np.bool_]) -> Any:
    """Return FAISS's fastest selector for a flat index: few rows are read one by one, many are told by a bitmap."""
    if mask.mean() > LISTED_SHARE:
        return graph_selector(mask)
    listed: Any = faiss.IDSelectorArray
    return listed(np.flatnonzero(mask))


def graph_selector(mask: NDArray[np.bool_]) -> Any:
    """Return FAISS's fastest selector for a graph, which asks for a row at a time."""
    bitmap: Any = faiss.IDSelectorBitmap
    return bitmap(np.packbits(mask, bitorder="little"))


def _rows(found: Any) -> list[int]:
    return [row for row in found[1][0].tolist() if row >= 0]
