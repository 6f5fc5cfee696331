"""Prepared float32 vectors in the memory of this process, by slot."""

import numpy as np

from services.common.vectors import Matrix
from services.search.core.vector_index import Numbers

SEGMENT_BYTES = 64 * 2**20


class SegmentedVectors:
    """Vectors by slot, in segments of fixed size whose memory the system hands out as it is touched.

    Growing copies nothing, and a reader goes on reading what it has begun to.
    """

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._segment_rows = max(1, SEGMENT_BYTES // (4 * dimensions))
        self._segments: list[Matrix] = []
        self._extent = 0

    @property
    def memory_bytes(self) -> int:
        """Bytes of the slots ever used."""
        return self._extent * self._dimensions * 4

    def write(self, slots: Numbers, vectors: Matrix) -> None:
        """Store row i of `vectors` in slots[i]."""
        extent = int(slots.max(initial=-1)) + 1
        while len(self._segments) * self._segment_rows < extent:
            self._segments.append(np.empty((self._segment_rows, self._dimensions), np.float32))
        self._extent = max(self._extent, extent)
        segments, places = np.divmod(slots, self._segment_rows)
        for segment in np.unique(segments):
            chosen = segments == segment
            self._segments[segment][places[chosen]] = vectors[chosen]

    def gather(self, slots: Numbers) -> Matrix:
        """Return the vectors of `slots`, shape (len(slots), dimensions)."""
        if len(self._segments) == 1:
            return self._segments[0][slots]
        gathered: Matrix = np.empty((len(slots), self._dimensions), np.float32)
        segments, places = np.divmod(slots, self._segment_rows)
        for segment in np.unique(segments):
            chosen = segments == segment
            gathered[chosen] = self._segments[segment][places[chosen]]
        return gathered
