"""Exact search with the help of a device: it proposes candidates by keys, the host ranks them and proves the answer.

The device scans halves and returns the best keys (`bounds`). Candidates are ranked by the float32 vectors of an index
on the host, as `services.search.core.scoring` scores. Where all vectors left out have keys below that of the last of
the `top_k` found, these are the answer. Otherwise whatever could be as near is ranked too: what the device finds in a
second scan, or, if it cannot scan for that, everything selected.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from services.common.vectors import Matrix, Metric
from services.search.core.scoring import Doubles, chunks, lengths_of, prepared
from services.search.core.vector_index import Numbers, Ranking, Selection, VectorIndex
from services.search.engines.device.bounds import score_key

QUERIES_AT_A_TIME = 64
SPARE_CANDIDATES = 16
SPARE_SHARE = 1 / 4
_FLOAT32_HUGE = 1e37


@dataclass(frozen=True, slots=True)
class Proposals:
    """For each query the slots of the best keys, shape (queries, n), -1 where there are fewer, in any order.

    No other selected slot has a key over `floors`, shape (queries,).
    """

    slots: Numbers
    floors: Doubles


class DeviceVectors(Protocol):
    """Vectors on a device in half precision. Slots, writers and readers are those of `VectorIndex`."""

    @property
    def memory_bytes(self) -> int:
        """Bytes of the device that vectors take, and of this process where that is not the same."""
        ...

    def suits(self, wanted: int, selection: Selection) -> bool:
        """Return whether the device is the place to look for the `wanted` best keys of `selection`."""
        ...

    def reserve(self, extent: int) -> None:
        """Make room for slots below `extent`.

        Raises:
            IndexTooLargeError: the device has none.
        """
        ...

    def write(self, slots: Numbers, vectors: Matrix) -> None:
        """Store row i of `vectors`, prepared, in slots[i]; there is room, and the host has them already."""
        ...

    def nearest(self, queries: Matrix, wanted: int, selection: Selection) -> Proposals:
        """Return at least the `wanted` best keys of `selection`, or fewer with the floors that follow from that.

        Raises:
            IndexTooLargeError: the device has no room for what a search computes.
        """
        ...


@runtime_checkable
class ScansForKeys(Protocol):
    """`DeviceVectors` that can also return everything as near as a key."""

    def within(self, query: Matrix, key: float, selection: Selection) -> Numbers:
        """Return each selected slot whose key for `query`, shape (dimensions,), is at least `key`, or hardly less."""
        ...


class DeviceIndex:
    """`VectorIndex` over a device, and over an exact index on the host, which answers what does not suit the device."""

    engine = "device-exact"

    def __init__(self, dimensions: int, metric: Metric, host: VectorIndex, device: DeviceVectors) -> None:
        self._dimensions = dimensions
        self._metric = metric
        self._host = host
        self._device = device
        self._longest = 0.0

    @property
    def memory_bytes(self) -> int:
        """Bytes of this process's memory and of the device's."""
        return self._host.memory_bytes + self._device.memory_bytes

    def write(self, slots: Numbers, vectors: Matrix) -> None:
        """See `VectorIndex`.

        Raises:
            IndexTooLargeError: the device has no room; nothing was written.
        """
        if not len(slots):
            return
        self._device.reserve(int(slots.max()) + 1)
        for part in chunks(len(slots), self._dimensions):
            rows = prepared(vectors[part], self._metric)
            if self._metric is not Metric.COSINE:
                self._longest = max(self._longest, float(lengths_of(rows).max()))
            self._host.write(slots[part], rows)
            self._device.write(slots[part], rows)

    def search(self, queries: Matrix, top_k: int, selection: Selection) -> Sequence[Ranking]:
        """See `VectorIndex`.

        Raises:
            IndexTooLargeError: the device has no room for what a search computes.
        """
        wanted = top_k + max(SPARE_CANDIDATES, int(top_k * SPARE_SHARE))
        few = selection.count <= wanted
        if few or not self._device.suits(wanted, selection) or self._overflows(queries):
            return self._host.search(queries, top_k, selection)
        return [
            ranking
            for begin in range(0, len(queries), QUERIES_AT_A_TIME)
            for ranking in self._search(queries[begin : begin + QUERIES_AT_A_TIME], top_k, wanted, selection)
        ]

    def rank(self, query: Matrix, top_k: int, slots: Numbers) -> Ranking:
        return self._host.rank(query, top_k, slots)

    def vectors(self, slots: Numbers) -> Matrix:
        return self._host.vectors(slots)

    def _search(self, queries: Matrix, top_k: int, wanted: int, selection: Selection) -> Iterator[Ranking]:
        proposals = self._device.nearest(queries, wanted, selection)
        for query, slots, floor in zip(queries, proposals.slots, proposals.floors.tolist(), strict=True):
            yield self._prove(query, slots[slots >= 0], floor, top_k, selection)

    def _prove(self, query: Matrix, near: Numbers, floor: float, top_k: int, selection: Selection) -> Ranking:
        """Return the answer, given the slots `near` and that no other selected one has a key over `floor`."""
        if len(near) >= top_k:
            ranking = self._host.rank(query, top_k, near)
            key = score_key(float(ranking.scores[top_k - 1]), float(lengths_of(query[None])[0]), self._metric)
            if floor < key:
                return ranking
            if isinstance(self._device, ScansForKeys):
                return self._host.rank(query, top_k, self._device.within(query, key, selection))
        (ranking,) = self._host.search(query[None], top_k, selection)
        return ranking

    def _overflows(self, queries: Matrix) -> bool:
        """Return whether squares of lengths might be beyond float32."""
        if self._metric is Metric.COSINE:
            return False
        largest = float(lengths_of(queries).max(initial=0)) + self._longest
        return largest**2 > _FLOAT32_HUGE
