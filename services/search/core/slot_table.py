"""Tables from one numbering to another: which row lies in which slot, which slot in which place."""

import numpy as np
from numpy.typing import NDArray

NOWHERE = -1
Places = NDArray[np.int32]


def grown(table: Places, length: int) -> Places:
    """Return `table` if it is that long, else a longer copy, filled up with `NOWHERE`; readers of the old keep it."""
    if length <= len(table):
        return table
    longer: Places = np.full(max(length, len(table) * 5 // 4), NOWHERE, np.int32)
    longer[: len(table)] = table
    return longer
