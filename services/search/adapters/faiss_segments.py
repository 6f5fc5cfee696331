"""The segments of a FAISS index: slots to rows, and what concerns all segments alike."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from services.common.vectors import Matrix, Metric
from services.search.adapters.faiss_codes import Coding
from services.search.adapters.faiss_packing import ROW_BYTES, Packing
from services.search.adapters.faiss_scan import Chosen
from services.search.adapters.faiss_segment import Probes, Segment
from services.search.core.scoring import Doubles, lengths_of
from services.search.core.vector_index import Mask, Numbers, Selection

SEGMENT_BYTES = 48 * 2**20
SEGMENT_ROWS_AT_MOST = 2**16
PACKED_SHARE = 0.6
"""The codes of a selection of up to this share are packed: of more, there is little that a scan need not read."""
PACKED_UP_TO = 1.2
"""An index packs codes while it takes at most so many times what its vectors do: less than with wide codes."""


@dataclass(frozen=True, slots=True)
class Part:
    """A segment, the slot of its first row, and the rows that a search chooses of it."""

    begin: int
    segment: Segment
    packing: Packing


class Segments:
    """Vectors by slot, prepared, in segments of fixed size whose memory the system hands out as it is touched.

    So growing copies nothing, and a search under way is never moved from under. One writer; readers at any time.
    """

    def __init__(self, dimensions: int, metric: Metric) -> None:
        self.metric = metric
        self.dimensions = dimensions
        self.longest = 0.0
        self.extent = 0
        self._rows = max(8, min(SEGMENT_ROWS_AT_MOST, SEGMENT_BYTES // (4 * dimensions)) // 8 * 8)
        self._segments: list[Segment] = []
        self._packed: OrderedDict[int, tuple[Selection, Sequence[Part]]] = OrderedDict()
        self._packing = threading.Lock()

    @property
    def memory_bytes(self) -> int:
        """Bytes of the slots ever used, and of codes packed for filters."""
        with self._packing:
            packings = [part.packing for _, parts in self._packed.values() for part in parts]
        return self._held_bytes + sum(packing.memory_bytes for packing in packings)

    def write(self, slots: Numbers, vectors: Matrix, coding: Coding | None) -> None:
        """Store prepared `vectors`; segments that are new are coded by `coding`."""
        lengths = lengths_of(vectors)
        self.longest = max(self.longest, float(lengths.max()))
        while len(self._segments) * self._rows <= int(slots.max()):
            self._segments.append(Segment(self._rows, self.dimensions, self.metric, coding))
        for segment, places, rows in self._by_segment(slots):
            segment.write(rows, vectors[places], lengths[places])
        self.extent = max(self.extent, int(slots.max()) + 1)

    def all(self) -> list[Segment]:
        """Return the segments there are."""
        return list(self._segments)

    def vectors(self, slots: Numbers) -> Matrix:
        """Return the vectors of `slots`, shape (len(slots), dimensions)."""
        if len(self._segments) == 1:
            return self._segments[0].vectors[slots]
        gathered: Matrix = np.empty((len(slots), self.dimensions), np.float32)
        for segment, places, rows in self._by_segment(slots):
            gathered[places] = segment.vectors[rows]
        return gathered

    def bounds(self, probes: Probes, slots: Numbers) -> Doubles:
        """Return the bounds of slots[i], shape (queries, n), for query i by their float32 vectors."""
        bounds = np.empty(slots.shape)
        for number, of_one in enumerate(slots):
            for segment, places, rows in self._by_segment(of_one):
                bounds[number, places] = segment.bounds(probes.one(number), rows[None])[0]
        return bounds

    def parts(self, selection: Selection) -> Sequence[Part]:
        """Return what there is to search of `selection`, which has bits or is everything.

        Those of the latest selections are kept for what they pack, as many as there is room for.
        """
        if selection.bits is None or selection.count > PACKED_SHARE * selection.extent:
            return self._parts(selection, packs=False)
        room = self._packable
        with self._packing:
            _, parts = self._packed.pop(id(selection), (selection, ()))
            parts = parts or self._parts(selection, packs=selection.count <= room)
            if selection.count <= room:
                self._packed[id(selection)] = selection, parts
            while sum(kept.count for kept, _ in self._packed.values()) > room:
                self._packed.popitem(last=False)
        return parts

    def unpack(self) -> None:
        """Forget what is packed, and the codes that it was packed from."""
        with self._packing:
            self._packed.clear()

    @property
    def _held_bytes(self) -> int:
        return sum(segment.memory_bytes for segment in self._segments)

    @property
    def _packable(self) -> int:
        """How many rows' codes may be packed."""
        code_bytes = max((segment.code_bytes for segment in self._segments), default=0)
        room = PACKED_UP_TO * 4 * self.dimensions * self.extent - self._held_bytes
        return max(0, int(room / (code_bytes + ROW_BYTES))) if code_bytes else 0

    def _parts(self, selection: Selection, *, packs: bool) -> Sequence[Part]:
        return [
            Part(begin, segment, Packing(chosen, packs=packs))
            for number, segment in enumerate(self._segments)
            if (begin := number * self._rows) < selection.extent
            and (chosen := _chosen(selection, begin, self._rows)) is not None
        ]

    def _by_segment(self, slots: Numbers) -> Iterator[tuple[Segment, Mask | slice, Numbers]]:
        """Yield the segments of `slots`, the places in `slots` of what lies in each, and its rows there."""
        if len(self._segments) == 1:
            yield self._segments[0], slice(None), slots
            return
        numbers, rows = np.divmod(slots, self._rows)
        for number in np.flatnonzero(np.bincount(numbers)).tolist():
            places = numbers == number
            yield self._segments[number], places, rows[places]


def _chosen(selection: Selection, begin: int, rows: int) -> Chosen | None:
    """Return what `selection` chooses of a segment's `rows`, from slot `begin` on; None where that is nothing."""
    count = min(rows, selection.extent - begin)
    if selection.bits is None:
        return Chosen(count)
    bits = selection.bits[begin // 8 : (begin + count + 7) // 8]
    return Chosen(count, bits) if bits.any() else None
