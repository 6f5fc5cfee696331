"""A plain scan by numpy, the oracle of the other engines: every selected vector is scored by `core.scoring`."""

from collections.abc import Sequence

import numpy as np

from services.common.vectors import Matrix, Metric
from services.search.core.scoring import prepared, ranked, scanned
from services.search.core.vector_index import Numbers, Ranking, Selection

GROWTH = 1.25


class MemoryIndex:
    """`VectorIndex` over one matrix, a row a slot."""

    engine = "memory-exact"

    def __init__(self, dimensions: int, metric: Metric) -> None:
        self._metric = metric
        self._vectors: Matrix = np.empty((0, dimensions), np.float32)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the matrix, spare rows among them."""
        return self._vectors.nbytes

    def write(self, slots: Numbers, vectors: Matrix) -> None:
        """See `VectorIndex`. A matrix that has grown is a new one: a search under way keeps the old."""
        self._reserve(int(slots.max(initial=-1)) + 1)
        self._vectors[slots] = prepared(vectors, self._metric)

    def search(self, queries: Matrix, top_k: int, selection: Selection) -> Sequence[Ranking]:
        """See `VectorIndex`."""
        slots = selection.slots()
        return [self.rank(query, top_k, slots) for query in queries]

    def rank(self, query: Matrix, top_k: int, slots: Numbers) -> Ranking:
        """See `VectorIndex`."""
        return ranked(slots, scanned(query, slots, self._vectors.__getitem__, self._metric), top_k, self._metric)

    def vectors(self, slots: Numbers) -> Matrix:
        """See `VectorIndex`."""
        return self._vectors[slots]

    def _reserve(self, slots: int) -> None:
        if slots <= len(self._vectors):
            return
        grown: Matrix = np.empty((max(slots, int(len(self._vectors) * GROWTH)), self._vectors.shape[1]), np.float32)
        grown[: len(self._vectors)] = self._vectors
        self._vectors = grown
