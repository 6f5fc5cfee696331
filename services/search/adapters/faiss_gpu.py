"""Exact search by FAISS on a GPU, ranked as `services.search.core.scoring` scores.

Blocks of vectors lie on the GPU in half precision, as FAISS's flat indexes. Those cannot overwrite, nor pass over what
a filter leaves out; so a block that was written is copied anew by the next search, and a search under a filter fetches
more and drops what is not selected. Answers are ranked by the float32 vectors of a `FaissIndex` in this process, which
also answers by itself what the GPU cannot prove: filters that leave little, very long lists, near-equal scores.

Bound: with a relative error of 2^-11 for a number as a half, and 2^-25 below its range, an inner product is off by at
most |q||v|·(2^-10 + 2^-21 + n·2^-22) + 2^-24·sqrt(n)·(|q| + |v|), the sum in float32 as in `torch_index`; a vector is
off by at most 2^-11|v| + 2^-25·sqrt(n), hence a distance by the sum of both vectors'.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import faiss
import numpy as np

from services.common.errors import ServiceUnavailableError
from services.common.vectors import Matrix, Metric
from services.search.adapters.device_memory import DeviceMemory
from services.search.adapters.faiss import FaissIndex
from services.search.core.scoring import Doubles, lengths_of, prepared
from services.search.core.vector_index import Numbers, Ranking, Selection

BLOCK_BYTES = 128 * 2**20
MOST_FETCHED = 2048  # FAISS's limit on a GPU
LEAST_SHARE = 1 / 8
SPARE_CANDIDATES = 16
SPARE_SHARE = 1 / 4
WORKSPACE_BYTES = 512 * 2**20
_HALF = 2.0**-11
_SUM = 2.0**-22
_FADING = 2.0**-25
_SLACK = 2.0**-20
_LONGEST = 2.0**14  # components of vectors no longer than this are within half precision


class Flats(Protocol):
    """Where blocks lie."""

    memory: DeviceMemory

    def flat(self, dimensions: int, metric: Metric) -> Any:
        """Return an empty FAISS index in half precision."""
        ...


class FaissDevice:
    """A GPU, shared by all indexes on it; `memory_bytes` of it are theirs."""

    def __init__(self, name: str, memory_bytes: int | None) -> None:
        """Take the GPU called `name`.

        Raises:
            ServiceUnavailableError: there is no such GPU, or `memory_bytes` is None: FAISS cannot tell what is free.
        """
        if not hasattr(faiss, "StandardGpuResources"):
            raise ImportError("the package faiss here is for CPUs")
        self._number = int(name.partition(":")[2] or 0)
        if not name.startswith("cuda") or self._number >= faiss.get_num_gpus():
            raise ServiceUnavailableError(f"device {name!r}", f"is not there: FAISS sees {faiss.get_num_gpus()} GPUs")
        if memory_bytes is None:
            problem = "needs SEARCH_GPU_MEMORY_BYTES, because FAISS cannot tell what a GPU has free"
            raise ServiceUnavailableError("the engine faiss-gpu", problem)
        self._resources = faiss.StandardGpuResources()
        self.memory = DeviceMemory(name, limit_bytes=memory_bytes, free_bytes=None, workspace_bytes=WORKSPACE_BYTES)

    def flat(self, dimensions: int, metric: Metric) -> Any:
        """See `Flats`."""
        config = faiss.GpuIndexFlatConfig()
        config.device, config.useFloat16 = self._number, True
        kind = faiss.GpuIndexFlatL2 if metric is Metric.EUCLIDEAN else faiss.GpuIndexFlatIP
        return kind(self._resources, dimensions, config)


@dataclass(slots=True)
class _Block:
    """A copy of some slots, as they were after `copied` writes; `written` counts the writes."""

    written: int = 0
    copied: int = -1
    flat: Any = None


@dataclass(frozen=True, slots=True)
class _Fetched:
    """Slots and keys, higher is nearer, shape (queries, n); no other slot has a key over `floors`, shape (queries,)."""

    slots: Numbers
    keys: Doubles
    floors: Doubles


class FaissGpuIndex:
    """`VectorIndex` over flat indexes on a GPU; `name` is that of the index in `DeviceMemory`."""

    engine = "faiss-gpu-exact"

    def __init__(self, dimensions: int, metric: Metric, device: Flats, name: str = "") -> None:
        self._dimensions = dimensions
        self._metric = metric
        self._device = device
        self._exact = FaissIndex(dimensions, metric)
        self._account = device.memory.account(name)
        self._block_rows = max(1, BLOCK_BYTES // (2 * dimensions))
        self._blocks: list[_Block] = []
        self._extent = 0
        self._longest = 0.0
        self._using = threading.Lock()

    @property
    def memory_bytes(self) -> int:
        """Bytes of this process's memory and of the GPU's."""
        return self._exact.memory_bytes + self._account.taken_bytes

    def write(self, slots: Numbers, vectors: Matrix) -> None:
        """See `VectorIndex`.

        Raises:
            IndexTooLargeError: the GPU has no room; nothing was written.
        """
        if not len(slots):
            return
        extent = max(self._extent, int(slots.max()) + 1)
        self._account.take((extent - self._extent) * 2 * self._dimensions)
        self._exact.write(slots, vectors)
        self._longest = max(self._longest, float(lengths_of(prepared(vectors, self._metric)).max()))
        self._extent = extent
        while len(self._blocks) * self._block_rows < extent:
            self._blocks.append(_Block())
        for number in np.unique(slots // self._block_rows):
            self._blocks[number].written += 1

    def search(self, queries: Matrix, top_k: int, selection: Selection) -> Sequence[Ranking]:
        """See `VectorIndex`."""
        wanted = top_k + max(SPARE_CANDIDATES, int(top_k * SPARE_SHARE))
        share = selection.count / max(1, selection.extent)
        fetch = int(wanted / max(share, LEAST_SHARE)) + SPARE_CANDIDATES
        listed = selection.listed is not None
        if listed or share < LEAST_SHARE or fetch > MOST_FETCHED or self._too_long(queries):
            return self._exact.search(queries, top_k, selection)
        fetched = self._fetched(queries, fetch, selection.extent)
        return [
            self._ranked(query, top_k, selection, slots[selection.has(slots)], floor)
            for query, slots, floor in zip(queries, fetched.slots, fetched.floors, strict=True)
        ]

    def rank(self, query: Matrix, top_k: int, slots: Numbers) -> Ranking:
        """See `VectorIndex`."""
        return self._exact.rank(query, top_k, slots)

    def vectors(self, slots: Numbers) -> Matrix:
        """See `VectorIndex`."""
        return self._exact.vectors(slots)

    def _ranked(self, query: Matrix, top_k: int, selection: Selection, near: Numbers, floor: float) -> Ranking:
        """Rank the selected slots `near`; no other one has a key over `floor`."""
        if len(near) >= min(top_k, selection.count):
            ranking = self.rank(query, top_k, near)
            if len(near) == selection.count or floor < self._limit(query, ranking, top_k):
                return ranking
        (ranking,) = self._exact.search(query[None], top_k, selection)
        return ranking

    def _fetched(self, queries: Matrix, fetch: int, extent: int) -> _Fetched:
        directions = np.ascontiguousarray(prepared(queries, self._metric))
        with self._using:
            parts = [
                self._part(directions, fetch, number)
                for number in range(-(-min(extent, self._extent) // self._block_rows))
            ]
        slots, keys = (np.concatenate([part[column] for part in parts], axis=1) for column in (0, 1))
        floors = np.max([part[2] for part in parts], axis=0)
        if keys.shape[1] > fetch:
            kept = np.argpartition(-keys, fetch, axis=1)[:, : fetch + 1]
            slots, keys = np.take_along_axis(slots, kept, 1), np.take_along_axis(keys, kept, 1)
            floors = np.maximum(floors, keys[:, fetch])
            slots, keys = slots[:, :fetch], keys[:, :fetch]
        return _Fetched(slots, keys, floors)

    def _part(self, directions: Matrix, fetch: int, number: int) -> tuple[Numbers, Doubles, Doubles]:
        """Return slots, keys, and which key no other slot of the block exceeds."""
        flat = self._current(number)
        scores, places = flat.search(directions, min(fetch, flat.ntotal))
        keys = scores.astype(np.float64) * (-1 if self._metric is Metric.EUCLIDEAN else 1)
        floors = keys[:, -1] if fetch < flat.ntotal else np.full(len(keys), -np.inf)
        return places + number * self._block_rows, keys, floors

    def _current(self, number: int) -> Any:
        """Return the block's copy, made anew where the block was written since."""
        block, begin = self._blocks[number], number * self._block_rows
        written, rows = block.written, min(self._block_rows, self._extent - begin)
        if block.copied != written:
            block.flat = None  # before there is another: there is room for one
            flat = self._device.flat(self._dimensions, self._metric)
            flat.add(self._exact.vectors(np.arange(begin, begin + rows)))
            block.flat, block.copied = flat, written
        return block.flat

    def _limit(self, query: Matrix, ranking: Ranking, top_k: int) -> float:
        """Return a key below which no vector's true score is as good as the last of the answer."""
        cut = float(ranking.scores[min(top_k, len(ranking.scores)) - 1])
        cosine = self._metric is Metric.COSINE
        asked, longest = (1.0, 1.0) if cosine else (float(lengths_of(query[None])[0]), self._longest)
        fading = 2 * _FADING * float(np.sqrt(self._dimensions))
        if self._metric is Metric.EUCLIDEAN:
            moved = _HALF * (asked + longest) + fading
            sums = self._dimensions * _SUM * (asked + longest) ** 2
            return -((cut * (1 + _SLACK) + moved) ** 2 + sums)
        relative = 2 * _HALF + 2 * _HALF**2 + self._dimensions * _SUM + _SLACK
        return cut - relative * asked * longest - fading * (asked + longest)

    def _too_long(self, queries: Matrix) -> bool:
        if self._metric is Metric.COSINE:
            return False
        return bool(lengths_of(queries).max(initial=0) + self._longest > _LONGEST)
