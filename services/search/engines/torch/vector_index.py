"""Exact search on a device of PyTorch: `services.search.engines.device` over halves of directions.

A vector lies on the device as its direction in half precision, which no length can overflow, and its length in float32.
"""

import numpy as np

from services.common.vectors import Matrix, Metric
from services.search.core.scoring import Doubles
from services.search.core.vector_index import Numbers, Selection
from services.search.engines.device.bounds import Rounded, directions, product_errors
from services.search.engines.device.vector_index import DeviceIndex, Proposals
from services.search.engines.memory.vector_index import MemoryIndex
from services.search.engines.torch.device import TorchDevice, padded
from services.search.engines.torch.scan import Queries, TorchScan
from services.search.engines.torch.vectors import Segment, TorchVectors


class TorchIndex(DeviceIndex):
    """`VectorIndex` on a `TorchDevice`; `name` is that of the index in `DeviceMemory`."""

    engine = "torch-exact"

    def __init__(self, dimensions: int, metric: Metric, device: TorchDevice, name: str = "") -> None:
        host, vectors = MemoryIndex(dimensions, metric), TorchDirections(dimensions, metric, device, name)
        super().__init__(dimensions, metric, host, vectors)


class TorchDirections:
    """`DeviceVectors` as directions with their lengths, which can also be scanned for keys."""

    def __init__(self, dimensions: int, metric: Metric, device: TorchDevice, name: str) -> None:
        self._dimensions = dimensions
        self._metric = metric
        self._device = device
        self._vectors = TorchVectors(device, dimensions, with_lengths=metric is not Metric.COSINE, name=name)
        self._scan = TorchScan(device, metric)
        self._error = 0.0

    @property
    def memory_bytes(self) -> int:
        return self._vectors.memory_bytes

    def suits(self, wanted: int, selection: Selection) -> bool:
        """Accept every selection: listed slots are gathered first."""
        return True

    def reserve(self, extent: int) -> None:
        self._vectors.reserve(extent)

    def write(self, slots: Numbers, vectors: Matrix) -> None:
        rows, lengths = directions(vectors)
        rounded = Rounded.of(rows)
        self._error = max(self._error, float(rounded.errors.max()))
        self._vectors.write(slots, rounded.halves, lengths)

    def nearest(self, queries: Matrix, wanted: int, selection: Selection) -> Proposals:
        with self._device.allocating(self._device.workspace_bytes), self._device.queueing:
            segments, among = self._segments(selection)
            batch, surplus = self._batch(queries)
            received = self._device.sending(*self._scan.nearest(segments, batch, wanted, among))
        keys, places = received()
        slots = np.where(np.isfinite(keys), _named(places, selection), -1)
        return Proposals(slots, keys.min(axis=1) + surplus)

    def within(self, query: Matrix, key: float, selection: Selection) -> Numbers:
        with self._device.allocating(self._device.workspace_bytes), self._device.queueing:
            segments, among = self._segments(selection)
            batch, surplus = self._batch(query[None])
            least = np.nextafter(np.float32(key - surplus[0]), np.float32(-np.inf))
            received = self._scan.within(segments, batch, least, among)
        return _named(received(), selection)

    def _segments(self, selection: Selection) -> tuple[tuple[Segment, ...], Selection]:
        """Return what to scan; slots that are listed are brought together, and numbered by their place in the list."""
        if selection.listed is None:
            return self._vectors.segments, selection
        return (self._vectors.gathered(selection.listed),), Selection(selection.count, selection.count)

    def _batch(self, queries: Matrix) -> tuple[Queries, Doubles]:
        """Return `queries` on the device, and for each what is to be added to what a scan says to be keys."""
        rows, lengths = directions(queries)
        rounded = Rounded.of(rows)
        errors = product_errors(self._dimensions, rounded.errors, self._error)
        halves = np.zeros((padded(len(rows)), self._dimensions), np.float16)
        halves[: len(rows)] = rounded.halves
        columns = (self._device.tensor(each[:, None].astype(np.float32)) for each in (errors, lengths))
        surplus = errors if self._metric is Metric.COSINE else np.zeros(len(errors))
        return Queries(len(rows), self._device.tensor(halves), *columns), surplus


def _named(places: Numbers, selection: Selection) -> Numbers:
    """Return the slots that a scan's places in the list stand for."""
    return places if selection.listed is None else selection.listed[places]
