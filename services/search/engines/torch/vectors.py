"""Vectors on a device of PyTorch, as directions in half precision with their lengths, by slot."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from services.common.vectors import Matrix
from services.search.core.scoring import Doubles
from services.search.core.vector_index import Numbers
from services.search.engines.device.bounds import Halves
from services.search.engines.torch.device import ROWS_MULTIPLE, TorchDevice

SEGMENT_BYTES = 2**30
FIRST_BYTES = 2**18
GROWTH = 1.25


@dataclass(frozen=True, slots=True)
class Segment:
    """Slots from `begin` on: `directions`, float16, shape (rows, dimensions), and `lengths`, float32, or None for 1."""

    begin: int
    directions: Any
    lengths: Any

    @property
    def rows(self) -> int:
        """How many slots there is room for."""
        return int(self.directions.shape[0])


class TorchVectors:
    """Segments of fixed size; the last one grows up to it, by a copy on the device.

    Readers take `segments` once and keep what they took. Slots never written are 0.
    """

    def __init__(self, device: TorchDevice, dimensions: int, *, with_lengths: bool, name: str = "") -> None:
        self.segments: tuple[Segment, ...] = ()
        self._device = device
        self._dimensions = dimensions
        self._with_lengths = with_lengths
        self._row_bytes = 2 * dimensions + 4 * with_lengths
        self._segment_rows = _whole(SEGMENT_BYTES // self._row_bytes)
        self._reservation = device.memory.reservation(name)

    @property
    def memory_bytes(self) -> int:
        """Bytes reserved of the device."""
        return self._reservation.reserved_bytes

    def reserve(self, extent: int) -> None:
        """Have room for slots below `extent`.

        Raises:
            IndexTooLargeError: the device has not.
        """
        while self._rows < extent:
            last = self.segments[-1] if self.segments else None
            if last is None or last.rows == self._segment_rows:
                self._append(Segment(self._rows, self._empty(0), self._no_lengths()), extent, kept=self.segments)
            else:
                self._append(last, extent, kept=self.segments[:-1])

    def write(self, slots: Numbers, halves: Halves, lengths: Doubles) -> None:
        """Store row i of `halves`, a direction, of length lengths[i], in slots[i]; there must be room."""
        with self._device.queueing:
            numbers = slots // self._segment_rows
            for number in np.unique(numbers):
                chosen = numbers == number
                segment = self.segments[number]
                places = self._device.tensor(slots[chosen] - segment.begin)
                segment.directions.index_copy_(0, places, self._device.tensor(halves[chosen]))
                if self._with_lengths:
                    segment.lengths.index_copy_(0, places, self._device.tensor(_float32(lengths[chosen])))

    def gathered(self, slots: Numbers) -> Segment:
        """Return `slots` as a segment of their own, which begins at 0; called while queueing."""
        numbers = slots // self._segment_rows
        parts = [
            (self.segments[number], self._device.tensor(slots[numbers == number] - self.segments[number].begin))
            for number in np.unique(numbers)
        ]
        directions = torch.cat([segment.directions[places] for segment, places in parts])
        if not self._with_lengths:
            return Segment(0, directions, None)
        return Segment(0, directions, torch.cat([segment.lengths[places] for segment, places in parts]))

    @property
    def _rows(self) -> int:
        return self.segments[-1].begin + self.segments[-1].rows if self.segments else 0

    def _append(self, old: Segment, extent: int, kept: tuple[Segment, ...]) -> None:
        """Put a longer copy of `old` behind `kept`."""
        least = max(extent - old.begin, int(old.rows * GROWTH), FIRST_BYTES // self._row_bytes)
        rows = min(self._segment_rows, _whole(least))
        wanted_bytes = rows * self._row_bytes
        self._reservation.grow(wanted_bytes)
        try:
            with self._device.allocating(wanted_bytes), self._device.queueing:
                self.segments = (*kept, self._longer(old, rows))
        except BaseException:
            self._reservation.shrink(wanted_bytes)
            raise
        self._reservation.shrink(old.rows * self._row_bytes)

    def _longer(self, old: Segment, rows: int) -> Segment:
        directions = self._empty(rows)
        directions[: old.rows] = old.directions
        if not self._with_lengths:
            return Segment(old.begin, directions, None)
        lengths = torch.zeros(rows, dtype=torch.float32, device=self._device.device)
        lengths[: old.rows] = old.lengths
        return Segment(old.begin, directions, lengths)

    def _empty(self, rows: int) -> Any:
        return torch.zeros((rows, self._dimensions), dtype=torch.float16, device=self._device.device)

    def _no_lengths(self) -> Any:
        return torch.zeros(0, dtype=torch.float32, device=self._device.device) if self._with_lengths else None


def _float32(lengths: Doubles) -> Matrix:
    """Return `lengths`, the largest number instead of those beyond it."""
    rounded: Matrix = np.minimum(lengths, np.finfo(np.float32).max).astype(np.float32)
    return rounded


def _whole(rows: int) -> int:
    """Return `rows` rounded up to a multiple of `ROWS_MULTIPLE`, at least one of it."""
    return max(1, -(-rows // ROWS_MULTIPLE)) * ROWS_MULTIPLE
