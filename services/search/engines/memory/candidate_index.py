"""Candidates by a plain scan of a copy of the vectors, as good as they can be: the oracle of the other makers."""

import json
from collections.abc import Generator, Sequence
from typing import BinaryIO

import numpy as np

from services.common.vectors import Matrix, Metric
from services.search.core.candidate_index import MAX_DEAD_SHARE, AnnKind, Sampler
from services.search.core.change_feed import Space
from services.search.core.scoring import ranked, scores_of
from services.search.core.vector_index import Mask, Numbers, Selection

_ENGINE = "memory-candidates"


class MemoryCandidateIndex:
    """`CandidateIndex` over one matrix: row i is the vector of slots[i]."""

    engine = _ENGINE

    def __init__(self, metric: Metric, slots: Numbers, vectors: Matrix, *, dead: int = 0) -> None:
        self._metric = metric
        self._slots = slots
        self._vectors = vectors
        self._dead = dead

    @property
    def size(self) -> int:
        return len(self._slots) + self._dead

    @property
    def memory_bytes(self) -> int:
        return self._vectors.nbytes + self._slots.nbytes

    def candidates(self, queries: Matrix, top_k: int, selection: Selection) -> Sequence[Numbers]:
        inside = selection.has(self._slots)
        slots, vectors = self._slots[inside], self._vectors[inside]
        return [ranked(slots, scores_of(query, vectors, self._metric), top_k, self._metric).slots for query in queries]

    def with_search_params(self, kind: AnnKind) -> None:
        return

    def extend(self, current: Mask, added: int) -> "MemoryAnnBuilder | None":
        known = np.append(current, np.False_)[np.minimum(self._slots, len(current))]
        if np.count_nonzero(known) < (1 - MAX_DEAD_SHARE) * self.size:
            return None
        dead = self.size - int(np.count_nonzero(known))
        return MemoryAnnBuilder(self._metric, self._slots[known], self._vectors[known], dead=dead)

    def save(self, file: BinaryIO) -> None:
        shape = {"engine": self.engine, "metric": self._metric.value, "dead": self._dead, "shape": self._vectors.shape}
        file.write(json.dumps(shape).encode() + b"\n")
        file.write(self._slots.astype("<i8").tobytes() + self._vectors.astype("<f4").tobytes())


class MemoryAnnBuilder:
    """`AnnBuilder` over matrices that are put together at every step."""

    def __init__(self, metric: Metric, slots: Numbers, vectors: Matrix, *, dead: int = 0) -> None:
        self._metric = metric
        self._slots = slots
        self._vectors = vectors
        self._dead = dead

    def add(self, slots: Numbers, vectors: Matrix) -> None:
        kept = ~np.isin(self._slots, slots)
        self._dead += int(np.count_nonzero(~kept))
        self._slots = np.concatenate([self._slots[kept], slots])
        self._vectors = np.concatenate([self._vectors[kept], vectors])

    def finish(self) -> MemoryCandidateIndex:
        return MemoryCandidateIndex(self._metric, self._slots, self._vectors, dead=self._dead)


class MemoryAnnFactory:
    """`AnnFactory` of scans, whatever the kind."""

    def min_vectors(self, kind: AnnKind) -> int:
        return 1

    def new_builder(
        self, space: Space, kind: AnnKind, count: int, sampler: Sampler
    ) -> Generator[float, None, MemoryAnnBuilder]:
        yield 0.0
        nothing = np.empty((0, space.dimensions), np.float32)
        return MemoryAnnBuilder(space.metric, np.empty(0, np.int64), nothing)

    def load(self, file: BinaryIO) -> MemoryCandidateIndex:
        try:
            header = json.loads(file.readline())
            rows, dimensions = header["shape"]
            slots = np.frombuffer(file.read(8 * rows), "<i8").astype(np.int64)
            vectors = np.frombuffer(file.read(4 * rows * dimensions), "<f4").reshape(rows, dimensions)
            return MemoryCandidateIndex(Metric(header["metric"]), slots, vectors, dead=header["dead"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no index of candidates can be read: {error}") from error
