"""Exact search on a device of PyTorch: halves are scanned there, candidates ranked as `core.scoring` does.

On the device a vector is its direction in half precision, so that no size is out of its range, and its length in
float32. Its float32 components stay in the memory of this process, to rank candidates by. With u and w for the
directions of a vector and a query, û and ŵ for their halves, and p for the product that the device sums up:

    |u·w - p| <= |u - û||w| + |û||w - ŵ| + n·2^-22·|û||ŵ| <= r + (1 + r)·s + n·2^-22·(1 + r)(1 + s)

r is the largest |u - û| of all vectors written, s is |w - ŵ|, both measured when halves are made. The last term is for
sums of n exact products in float32 in any order (Higham, "Accuracy and Stability of Numerical Algorithms", 2002,
ch. 3), at four times the unit roundoff because tensor cores cut off what others round (Fasi, Higham, Mikaitis &
Pranesh, "Numerical behavior of NVIDIA tensor cores", 2021). `SLACK` is for the few roundings besides.

From that bound comes a key for each vector that no true score exceeds. The best by key are candidates; where the last
of them, hence each vector left out, is provably farther than the last of the `top_k` that were found, these are the
answer. Otherwise a second scan fetches all whose keys reach so far.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from services.common.vectors import Matrix, Metric
from services.search.adapters.host_vectors import HostVectors
from services.search.adapters.torch_device import QUERIES_AT_A_TIME, Halves, TorchDevice, padded
from services.search.adapters.torch_scan import SLACK, Queries, TorchScan
from services.search.adapters.torch_vectors import Segment, TorchVectors
from services.search.core.scoring import CHUNK_FLOATS, Doubles, lengths_of, prepared, ranked, scanned
from services.search.core.vector_index import Numbers, Ranking, Selection

SPARE_CANDIDATES = 16
SPARE_SHARE = 1 / 4
_ACCUMULATION = 2.0**-22
_TINY = 2.0**-100  # far above what float32 loses where numbers fade into 0
_FLOAT32_HUGE = 1e37


@dataclass(frozen=True, slots=True)
class Directions:
    """Rows scaled to length 1 as halves, how long they were, and how far each half is from what it stands for."""

    halves: Halves
    lengths: Doubles
    errors: Doubles

    @classmethod
    def of(cls, vectors: Matrix) -> "Directions":
        """Take `vectors`, shape (n, dimensions)."""
        lengths = lengths_of(vectors)
        units = np.divide(vectors, lengths[:, None], out=np.zeros(vectors.shape), where=lengths[:, None] > 0)
        halves = units.astype(np.float16)
        return cls(halves, lengths, lengths_of(units - halves.astype(np.float64)))


class TorchIndex:
    """`VectorIndex` on a `TorchDevice`; `name` is that of the index in `DeviceMemory`."""

    engine = "torch-exact"

    def __init__(self, dimensions: int, metric: Metric, device: TorchDevice, name: str = "") -> None:
        self._dimensions = dimensions
        self._metric = metric
        self._device = device
        self._host = HostVectors(dimensions)
        self._halves = TorchVectors(device, dimensions, with_lengths=metric is not Metric.COSINE, name=name)
        self._scan = TorchScan(device, metric)
        self._longest = 0.0
        self._worst_half = 0.0

    @property
    def memory_bytes(self) -> int:
        """Bytes of this process's memory and of the device's, where they are not the same."""
        return self._host.memory_bytes + self._halves.memory_bytes

    def write(self, slots: Numbers, vectors: Matrix) -> None:
        """See `VectorIndex`.

        Raises:
            IndexTooLargeError: the device has no room; nothing was written.
        """
        if not len(slots):
            return
        self._halves.reserve(int(slots.max()) + 1)
        size = max(1, CHUNK_FLOATS // self._dimensions)
        for begin in range(0, len(slots), size):
            self._write(slots[begin : begin + size], vectors[begin : begin + size])

    def search(self, queries: Matrix, top_k: int, selection: Selection) -> Sequence[Ranking]:
        """See `VectorIndex`.

        Raises:
            IndexTooLargeError: the device has no room for what a search computes.
        """
        wanted = top_k + max(SPARE_CANDIDATES, int(top_k * SPARE_SHARE))
        if selection.count <= wanted or self._overflows(queries):
            return [self.rank(query, top_k, selection.slots()) for query in queries]
        return [
            ranking
            for begin in range(0, len(queries), QUERIES_AT_A_TIME)
            for ranking in self._searched(queries[begin : begin + QUERIES_AT_A_TIME], top_k, wanted, selection)
        ]

    def rank(self, query: Matrix, top_k: int, slots: Numbers) -> Ranking:
        """See `VectorIndex`."""
        return ranked(slots, scanned(query, slots, self._host.gather, self._metric), top_k, self._metric)

    def vectors(self, slots: Numbers) -> Matrix:
        """See `VectorIndex`."""
        return self._host.gather(slots)

    def _write(self, slots: Numbers, vectors: Matrix) -> None:
        rows = prepared(vectors, self._metric)
        directions = Directions.of(rows)
        self._longest = max(self._longest, float(directions.lengths.max()))
        self._worst_half = max(self._worst_half, float(directions.errors.max()))
        self._host.write(slots, rows)
        self._halves.write(slots, directions.halves, directions.lengths)

    def _searched(self, queries: Matrix, top_k: int, wanted: int, selection: Selection) -> Iterator[Ranking]:
        directions = Directions.of(queries)
        errors = self._errors(directions)
        with self._device.allocating(self._device.workspace_bytes), self._device.queueing:
            segments, among = self._segments(selection)
            batch = self._batch(directions, errors)
            received = self._device.sending(*self._scan.nearest(segments, batch, wanted, among))
        keys, slots = received()
        for place, query in enumerate(queries):
            candidates = _named(slots[place][np.isfinite(keys[place])], selection)
            ranking = self.rank(query, top_k, candidates)
            limit = self._limit(float(ranking.scores[top_k - 1]), float(directions.lengths[place]), errors[place])
            if len(candidates) < selection.count and keys[place].min() >= limit:
                ranking = self.rank(query, top_k, self._within(query, np.float32(limit), selection))
            yield ranking

    def _within(self, query: Matrix, limit: np.float32, selection: Selection) -> Numbers:
        """Return each selected slot whose key is at least `limit`, or hardly less."""
        directions = Directions.of(query[None])
        with self._device.allocating(self._device.workspace_bytes), self._device.queueing:
            segments, among = self._segments(selection)
            batch = self._batch(directions, self._errors(directions))
            received = self._scan.within(segments, batch, np.nextafter(limit, np.float32(-np.inf)), among)
        return _named(received(), selection)

    def _segments(self, selection: Selection) -> tuple[Sequence[Segment], Selection]:
        """Return what to scan; slots that are listed are brought together, and numbered by their place in the list."""
        if selection.listed is None:
            return self._halves.segments, selection
        return [self._halves.gathered(selection.listed)], Selection(selection.count, selection.count)

    def _batch(self, directions: Directions, errors: Doubles) -> Queries:
        count = len(directions.halves)
        halves = np.zeros((padded(count), self._dimensions), np.float16)
        halves[:count] = directions.halves
        columns = (errors, directions.lengths)
        return Queries(count, self._device.tensor(halves), *(self._device.tensor(_column(each)) for each in columns))

    def _errors(self, queries: Directions) -> Doubles:
        """Return for each query how far the product of a direction may be off."""
        r, s = self._worst_half, queries.errors
        errors: Doubles = r + (1 + r) * s + self._dimensions * _ACCUMULATION * (1 + r) * (1 + s) + SLACK
        return errors

    def _limit(self, score: float, length: float, error: float) -> float:
        """Return a key below which no vector's true score is as good as `score`."""
        match self._metric:
            case Metric.COSINE:
                return score - error
            case Metric.DOT_PRODUCT:
                return score / length - _TINY if length else -np.inf
            case Metric.EUCLIDEAN:
                return length**2 * (1 - SLACK**2) - (score * (1 + SLACK)) ** 2 - _TINY

    def _overflows(self, queries: Matrix) -> bool:
        if self._metric is Metric.COSINE:
            return False
        largest = float(lengths_of(queries).max(initial=0)) + self._longest
        return largest**2 > _FLOAT32_HUGE


def _column(values: Doubles) -> Matrix:
    column: Matrix = values[:, None].astype(np.float32)
    return column


def _named(slots: Numbers, selection: Selection) -> Numbers:
    """Return the slots that a scan's places in the list stand for."""
    return slots if selection.listed is None else selection.listed[slots]
