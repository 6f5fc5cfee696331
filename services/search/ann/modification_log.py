"""When each slot was last modified, so that an index built from slots knows which of them it still represents."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from services.search.core.vector_index import Mask, Numbers

SequenceNumbers = NDArray[np.int64]


class ModificationLog:
    """Numbers modifications: the sequence number is the count of slots written. One writer; readers at any time.

    A slot is marked before its vector changes, and the sequence number advances after that. So a reader that takes the
    sequence number first and vectors then can tell every vector that changed while it was read: its slot is marked
    with a later number.
    """

    def __init__(self) -> None:
        self.sequence_number = 0
        self._modified_at: SequenceNumbers = np.zeros(0, np.int64)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the log."""
        return self._modified_at.nbytes

    @contextmanager
    def recording(self, slots: Numbers) -> Iterator[None]:
        """Mark `slots` as modified by the block, which writes their vectors."""
        sequence_number = self.sequence_number + len(slots)
        self._reserve(int(slots.max()) + 1)
        self._modified_at[slots] = sequence_number
        yield
        self.sequence_number = sequence_number

    def modified_after(self, slots: Numbers, sequence_number: int) -> Mask:
        """Return for each of `slots`, all written before, whether it was modified after `sequence_number`."""
        found: Mask = self._modified_at[slots] > sequence_number
        return found

    def slots_after(self, sequence_number: int) -> Numbers:
        """Return the slots modified after `sequence_number`, ascending."""
        return np.flatnonzero(self._modified_at > sequence_number)

    def reset(self, slots: Numbers) -> None:
        """Mark `slots` as modified at sequence number 1, and all others as modified after that."""
        self._modified_at[self._modified_at > 0] = 2
        self._modified_at[slots] = 1
        self.sequence_number = 1 + int(np.count_nonzero(self._modified_at > 1))

    def _reserve(self, slots: int) -> None:
        if slots <= len(self._modified_at):
            return
        longer: SequenceNumbers = np.zeros(max(slots, len(self._modified_at) * 5 // 4), np.int64)
        longer[: len(self._modified_at)] = self._modified_at
        self._modified_at = longer
