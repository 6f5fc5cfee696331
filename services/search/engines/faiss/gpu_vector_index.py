"""Exact search by FAISS on a GPU: `services.search.engines.device` over its flat indexes of inner products.

Blocks of vectors lie on the GPU in half precision. FAISS's flat indexes cannot overwrite, nor pass over what a filter
leaves out; so a block that was written is copied anew by the next search, and a search under a filter fetches more and
drops what is not selected. The host's index answers where that is not worth while.

A block's rows are scaled by the length c of its longest vector, so that they are in the range of halves. Under a
Euclidean metric vectors v and queries q are taken from the block's mean; rows end in |v|²/c², as two halves, and
queries in -c/2. Scaled by 2c, the product of (v/c, |v|²/c²) and (q, -c/2) is 2·v·q - |v|², as a key says, but for what
|q|² is more from the origin than from the mean.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import faiss
import numpy as np

from services.common.errors import ServiceUnavailableError
from services.common.vectors import Matrix, Metric
from services.search.core.scoring import Doubles, lengths_of
from services.search.core.vector_index import Numbers, Selection, VectorIndex
from services.search.engines.device.bounds import Rounded, directions, product_errors, scaled
from services.search.engines.device.memory import DeviceMemory
from services.search.engines.device.vector_index import DeviceIndex, Proposals

BLOCK_BYTES = 128 * 2**20
MOST_FETCHED = 2048  # FAISS's limit on a GPU
LEAST_SHARE = 1 / 8
SPARE_FETCHED = 16
WORKSPACE_BYTES = 512 * 2**20
_LENGTH_COLUMNS = 8  # two are needed; tensor cores multiply columns by the eight


class FlatDevice(Protocol):
    """Where blocks lie."""

    memory: DeviceMemory

    def flat(self, dimensions: int) -> Any:
        """Return an empty FAISS index of inner products in half precision."""
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

    def flat(self, dimensions: int) -> Any:
        config = faiss.GpuIndexFlatConfig()
        config.device, config.useFloat16 = self._number, True
        return faiss.GpuIndexFlatIP(self._resources, dimensions, config)


class FaissGpuIndex(DeviceIndex):
    """`VectorIndex` over flat indexes on a GPU; `name` is that of the index in `DeviceMemory`."""

    engine = "faiss-gpu-exact"

    def __init__(self, dimensions: int, metric: Metric, host: VectorIndex, device: FlatDevice, name: str = "") -> None:
        super().__init__(dimensions, metric, host, FaissGpuVectors(dimensions, metric, device, host.vectors, name))


@dataclass(frozen=True, slots=True)
class _Copy:
    """A block on the GPU as of `written` writes: how its rows are scaled, the longest of them, and their error."""

    written: int
    flat: Any
    scale: "_Scale"
    longest: float
    error: float


@dataclass(frozen=True, slots=True)
class _Scale:
    """The length that rows are divided by, and what is subtracted from them before."""

    length: float
    mean: Doubles


@dataclass(frozen=True, slots=True)
class _Found:
    """Slots and keys, shape (queries, n); no other slot has a key over `floors`, shape (queries,)."""

    slots: Numbers
    keys: Doubles
    floors: Doubles


class FaissGpuVectors:
    """`DeviceVectors` in blocks, each a flat index; `gather` fetches vectors from the host."""

    def __init__(
        self, dimensions: int, metric: Metric, device: FlatDevice, gather: Callable[[Numbers], Matrix], name: str
    ) -> None:
        self._metric = metric
        self._device = device
        self._gather = gather
        self._columns = dimensions + _LENGTH_COLUMNS * (metric is Metric.EUCLIDEAN)
        self._reservation = device.memory.reservation(name)
        self._reserved_rows = 0
        self._block_rows = max(1, BLOCK_BYTES // (2 * self._columns))
        self._written: list[int] = []
        self._copies: dict[int, _Copy] = {}
        self._extent = 0
        self._using = threading.Lock()

    @property
    def memory_bytes(self) -> int:
        return self._reservation.reserved_bytes

    def suits(self, wanted: int, selection: Selection) -> bool:
        many = selection.listed is None and selection.count >= LEAST_SHARE * selection.extent
        return many and _fetched(wanted, selection) <= MOST_FETCHED

    def reserve(self, extent: int) -> None:
        rows = max(0, extent - self._reserved_rows)
        self._reservation.grow(rows * 2 * self._columns)
        self._reserved_rows += rows

    def write(self, slots: Numbers, vectors: Matrix) -> None:
        """Mark the vectors as written; the next search copies them to the device."""
        self._extent = max(self._extent, int(slots.max()) + 1)
        self._written += [0] * (-(-self._extent // self._block_rows) - len(self._written))
        for number in np.unique(slots // self._block_rows):
            self._written[number] += 1

    def nearest(self, queries: Matrix, wanted: int, selection: Selection) -> Proposals:
        fetch = _fetched(wanted, selection)
        with self._using:
            parts = [
                self._search_block(number, queries, fetch, selection)
                for number in range(-(-selection.extent // self._block_rows))
            ]
        slots = np.concatenate([part.slots for part in parts], axis=1)
        keys = np.concatenate([part.keys for part in parts], axis=1)
        floors = np.max([part.floors for part in parts], axis=0)
        if keys.shape[1] > wanted:
            order = np.argpartition(-keys, wanted, axis=1)[:, : wanted + 1]
            slots, keys = np.take_along_axis(slots, order, 1)[:, :wanted], np.take_along_axis(keys, order, 1)
            floors, keys = np.maximum(floors, keys[:, wanted]), keys[:, :wanted]
        return Proposals(np.where(np.isfinite(keys), slots, -1), floors)

    def _search_block(self, number: int, queries: Matrix, fetch: int, selection: Selection) -> _Found:
        copy = self._current(number)
        asked, units, shifts = self._encode_queries(queries, copy.scale)
        errors = product_errors(self._columns, asked.errors, copy.error, copy.longest)
        products, places = copy.flat.search(asked.halves.astype(np.float32), min(fetch, copy.flat.ntotal))
        keys = (products + errors[:, None]) * units[:, None] + shifts[:, None]
        floors = keys[:, -1] if fetch < copy.flat.ntotal else np.full(len(keys), -np.inf)
        slots = places + number * self._block_rows
        return _Found(slots, np.where(selection.has(slots), keys, -np.inf), floors)

    def _current(self, number: int) -> _Copy:
        """Return the block's copy, made anew where the block was written since."""
        copy, written = self._copies.get(number), self._written[number]
        if copy is None or copy.written != written:
            del copy
            self._copies.pop(number, None)  # before there is another: there is room for one
            copy = self._copies[number] = self._copied(number, written)
        return copy

    def _copied(self, number: int, written: int) -> _Copy:
        begin = number * self._block_rows
        vectors = self._gather(np.arange(begin, min(begin + self._block_rows, self._extent)))
        rows, scale = self._encode_rows(vectors)
        rounded = Rounded.of(rows)
        flat = self._device.flat(self._columns)
        flat.add(rounded.halves.astype(np.float32))
        longest = float(np.linalg.norm(rows, axis=1).max())
        return _Copy(written, flat, scale, longest, float(rounded.errors.max()))

    def _encode_rows(self, vectors: Matrix) -> tuple[Doubles, _Scale]:
        """Return `vectors` as rows of a block."""
        mean = np.zeros(vectors.shape[1])
        if self._metric is Metric.COSINE:
            return directions(vectors)[0], _Scale(1.0, mean)
        if self._metric is Metric.EUCLIDEAN:
            mean = vectors.mean(axis=0, dtype=np.float64)
        rows = vectors - mean
        length = np.linalg.norm(rows, axis=1).max()
        rows = scaled(rows, length)
        if self._metric is Metric.EUCLIDEAN:
            rows = np.pad(rows, ((0, 0), (0, _LENGTH_COLUMNS)))
            squares = np.einsum("ij,ij->i", rows, rows)
            rows[:, -2] = squares.astype(np.float16)
            rows[:, -1] = squares - rows[:, -2]
        return rows, _Scale(float(length), mean)

    def _encode_queries(self, queries: Matrix, scale: _Scale) -> tuple[Rounded, Doubles, Doubles]:
        """Return `queries` for a block, and what their products are multiplied by, then added to, to be keys."""
        if self._metric is not Metric.EUCLIDEAN:
            rows, _ = directions(queries)
            return Rounded.of(rows), np.full(len(rows), scale.length), np.zeros(len(rows))
        asked = np.pad(queries - scale.mean, ((0, 0), (0, _LENGTH_COLUMNS)))
        shifts = lengths_of(queries) ** 2 - np.einsum("ij,ij->i", asked, asked)
        asked[:, -2:] = -scale.length / 2
        lengths = np.linalg.norm(asked, axis=1)
        return Rounded.of(scaled(asked, lengths[:, None])), 2 * scale.length * lengths, shifts


def _fetched(wanted: int, selection: Selection) -> int:
    """Return how many to fetch of each block, for about `wanted` that are selected."""
    share = selection.count / max(1, selection.extent)
    return int(wanted / max(share, LEAST_SHARE)) + SPARE_FETCHED
