"""The codes of the rows that a filter lets pass, copied side by side once searches come back to the filter.

A scan that skips rows still asks of each whether it may, which costs about what scoring it does. Of codes that lie side
by side it reads what it compares and nothing else.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from services.common.vectors import Matrix
from services.search.adapters.faiss_scan import NOWHERE, Chosen, CodeScan, Found
from services.search.core.vector_index import Numbers, Scores

PACKED_AT = 4
"""The scan that packs: to copy codes costs about as much as that many scans save."""
ROW_BYTES = 4
"""What a copied code takes besides itself: the number of its row."""


@dataclass(frozen=True, slots=True)
class ChosenCodes:
    """What scans read: the `chosen` codes of `scan`. Where there are `rows`, code i is that of rows[i]."""

    scan: CodeScan
    chosen: Chosen
    rows: NDArray[np.int32] | None = None

    @property
    def memory_bytes(self) -> int:
        """Bytes of the codes and of `rows`."""
        return self.scan.codes.nbytes + (0 if self.rows is None else self.rows.nbytes)

    def nearest(self, queries: Matrix, wanted: int) -> Found:
        """See `CodeScan.nearest`."""
        found = self.scan.nearest(queries, wanted, self.chosen)
        return replace(found, rows=self._numbered(found.rows))

    def above(self, query: Matrix, limit: float) -> tuple[Numbers, Scores]:
        """See `CodeScan.above`."""
        places, scores = self.scan.above(query, limit, self.chosen)
        return self._numbered(places), scores

    def _numbered(self, places: Numbers) -> Numbers:
        if self.rows is None:
            return places
        rows = self.rows[places].astype(np.int64)
        rows[places < 0] = NOWHERE
        return rows


@dataclass(slots=True)
class _Copy:
    """A copy of what `scan` held of some rows when so many rows had been `written`, or how many asked for one."""

    scan: CodeScan
    written: int
    asked: int = 0
    codes: ChosenCodes | None = None

    def taken(self, chosen: Chosen) -> ChosenCodes:
        self.asked += 1
        if self.codes is None and self.asked >= PACKED_AT:
            rows = chosen.all()
            packed = CodeScan(self.scan.codes[rows], self.scan.quantizer)
            self.codes = ChosenCodes(packed, Chosen(len(rows)), rows.astype(np.int32))
        return self.codes or ChosenCodes(self.scan, chosen)


class Packing:
    """The rows of a segment that searches of one selection compare; where it `packs`, with a copy of their codes.

    Nobody writes these rows while they are searched, so a copy is right until the next write, whatever that writes.
    """

    def __init__(self, chosen: Chosen, *, packs: bool) -> None:
        self.chosen = chosen
        self._packs = packs
        self._copy: _Copy | None = None

    @property
    def memory_bytes(self) -> int:
        """Bytes of the copy."""
        codes = self._copy.codes if self._copy else None
        return codes.memory_bytes if codes else 0

    def codes(self, scan: CodeScan, written: int) -> ChosenCodes:
        """Return what to read of `scan`, of a segment to which so many rows have been written so far."""
        if not self._packs:
            return ChosenCodes(scan, self.chosen)
        copy = self._copy
        if copy is None or copy.scan is not scan or copy.written != written:
            copy = self._copy = _Copy(scan, written)
        return copy.taken(self.chosen)
