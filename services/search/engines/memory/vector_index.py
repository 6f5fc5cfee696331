"""A plain scan by numpy, the oracle of the other engines: every selected vector is scored by `core.scoring`."""

from collections.abc import Sequence

from services.common.vectors import Matrix, Metric
from services.search.core.scoring import prepared, ranked, scanned
from services.search.core.vector_index import Numbers, Ranking, Selection
from services.search.engines.memory.vectors import SegmentedVectors


class MemoryIndex:
    """`VectorIndex` over float32 vectors alone."""

    engine = "memory-exact"

    def __init__(self, dimensions: int, metric: Metric) -> None:
        self._metric = metric
        self._vectors = SegmentedVectors(dimensions)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the slots ever used."""
        return self._vectors.memory_bytes

    def write(self, slots: Numbers, vectors: Matrix) -> None:
        self._vectors.write(slots, prepared(vectors, self._metric))

    def search(self, queries: Matrix, top_k: int, selection: Selection) -> Sequence[Ranking]:
        slots = selection.slots()
        return [self.rank(query, top_k, slots) for query in queries]

    def rank(self, query: Matrix, top_k: int, slots: Numbers) -> Ranking:
        return ranked(slots, scanned(query, slots, self._vectors.gather, self._metric), top_k, self._metric)

    def vectors(self, slots: Numbers) -> Matrix:
        return self._vectors.gather(slots)
