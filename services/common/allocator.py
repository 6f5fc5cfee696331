"""The heap of the C library."""

import ctypes
from functools import lru_cache


def trim_heap() -> None:
    """Return freed heap memory to the operating system if the C library supports it; glibc keeps much of it otherwise.

    Takes some milliseconds; run it in a thread.
    """
    trim = getattr(_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


@lru_cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None)
