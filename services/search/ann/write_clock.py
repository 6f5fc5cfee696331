"""When each slot was written last, so that what was made from slots knows which of them it still holds."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from services.search.core.vector_index import Mask, Numbers

Moments = NDArray[np.int64]


class ModificationLog:
    """Counts the slots written; a moment is such a count. One writer; readers at any time.

    A slot is marked before its vector changes, and the clock moves after that. So who reads the clock first and vectors
    then knows of every vector read while it changed: its slot was written later than the moment read.
    """

    def __init__(self) -> None:
        self.now = 0
        self._written: Moments = np.zeros(0, np.int64)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the marks."""
        return self._written.nbytes

    @contextmanager
    def writing(self, slots: Numbers) -> Iterator[None]:
        """Write the vectors of `slots` in the block."""
        moment = self.now + len(slots)
        self._reserve(int(slots.max()) + 1)
        self._written[slots] = moment
        yield
        self.now = moment

    def later(self, slots: Numbers, moment: int) -> Mask:
        """Return for each of `slots`, all written once, whether it was written after `moment`."""
        found: Mask = self._written[slots] > moment
        return found

    def since(self, moment: int) -> Numbers:
        """Return the slots written after `moment`, ascending."""
        return np.flatnonzero(self._written > moment)

    def forget(self, slots: Numbers) -> None:
        """Let `slots` count as written long ago, at moment 1, and all others as written after that."""
        self._written[self._written > 0] = 2
        self._written[slots] = 1
        self.now = 1 + int(np.count_nonzero(self._written > 1))

    def _reserve(self, slots: int) -> None:
        if slots <= len(self._written):
            return
        grown: Moments = np.zeros(max(slots, len(self._written) * 5 // 4), np.int64)
        grown[: len(self._written)] = self._written
        self._written = grown
