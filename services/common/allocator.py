"""The C library's memory."""

import ctypes
from functools import lru_cache


def trim_heap() -> None:
    """Give the system back what was freed and is kept for later, where the C library can: glibc keeps a lot.

    Takes some milliseconds; run it in a thread.
    """
    trim = getattr(_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


@lru_cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None)
