"""Tables from one numbering to another: which row lies in which slot, which slot in which place."""

import numpy as np
from numpy.typing import NDArray

EMPTY = -1
SlotTable = NDArray[np.int32]


def grow(table: SlotTable, length: int) -> SlotTable:
    """Return `table` if it is that long, else a longer copy, filled up with `EMPTY`; readers of the old keep it."""
    if length <= len(table):
        return table
    longer: SlotTable = np.full(max(length, len(table) * 5 // 4), EMPTY, np.int32)
    longer[: len(table)] = table
    return longer
