"""The memory of a device, planned before it is taken."""

import threading
import time
import weakref
from collections.abc import Callable

from services.search.core.errors import IndexTooLargeError

REMEMBERED_SECONDS = 600.0


class MemoryReservation:
    """What one index takes of a device; it is released when the index, and its reservation with it, is gone."""

    def __init__(self, memory: "DeviceMemory", name: str) -> None:
        self._memory = memory
        self.name = name
        self.reserved_bytes = 0

    def grow(self, wanted_bytes: int) -> None:
        """Reserve `wanted_bytes` more, before they are allocated.

        Raises:
            IndexTooLargeError: the device has less left.
        """
        self._memory.resize(self, wanted_bytes)

    def shrink(self, unused_bytes: int) -> None:
        """Release `unused_bytes`."""
        self._memory.resize(self, -unused_bytes)


class DeviceMemory:
    """How much of a device all indexes may take together, and how much they have.

    `limit_bytes` is the most they may, None for no limit; `free_bytes` tells what the device has free for this process,
    None where nobody knows. `workspace_bytes` of either are left for searches.

    An index that did not fit is remembered by name for `REMEMBERED_SECONDS`, with the bytes that it had come to: built
    anew meanwhile, it is refused at its first byte unless there is room for as many, so that its tries do not take,
    again and again, what others could have.
    """

    def __init__(
        self, device: str, *, limit_bytes: int | None, free_bytes: Callable[[], int] | None, workspace_bytes: int
    ) -> None:
        self.device = device
        self._limit_bytes = limit_bytes
        self._free_bytes = free_bytes
        self._workspace_bytes = workspace_bytes
        self._reservations: weakref.WeakSet[MemoryReservation] = weakref.WeakSet()
        self._refused: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def reservation(self, name: str = "") -> MemoryReservation:
        """Return an empty reservation for the index called `name`; "" is nobody's name."""
        reservation = MemoryReservation(self, name)
        with self._lock:
            self._reservations.add(reservation)
        return reservation

    def resize(self, reservation: MemoryReservation, change_bytes: int) -> None:
        """Let `reservation` have `change_bytes` more, or fewer where negative.

        Raises:
            IndexTooLargeError: the device has less left.
        """
        with self._lock:
            left = self._left()
            needed = max(change_bytes, 0 if reservation.reserved_bytes else self._remembered(reservation.name))
            if change_bytes > 0 and left is not None and needed > left:
                self._remember(reservation, change_bytes)
                raise IndexTooLargeError(self.device, needed, max(0, left))
            reservation.reserved_bytes += change_bytes

    def _remember(self, reservation: MemoryReservation, wanted_bytes: int) -> None:
        """Remember how many bytes the index had come to, unless that is why it is refused."""
        if reservation.name and (reservation.reserved_bytes or reservation.name not in self._refused):
            self._refused[reservation.name] = (reservation.reserved_bytes + wanted_bytes, time.monotonic())

    def _remembered(self, name: str) -> int:
        """Return the bytes that the index called `name` came to lately, 0 where it was never refused."""
        known_bytes, since = self._refused.get(name, (0, 0.0))
        if time.monotonic() - since > REMEMBERED_SECONDS:
            self._refused.pop(name, None)
            return 0
        return known_bytes

    def left_bytes(self) -> int | None:
        """Return how much more indexes may take; None where nobody knows."""
        with self._lock:
            return self._left()

    def _left(self) -> int | None:
        bounds = []
        if self._limit_bytes is not None:
            bounds.append(self._limit_bytes - sum(reservation.reserved_bytes for reservation in self._reservations))
        if self._free_bytes is not None:
            bounds.append(self._free_bytes())
        return min(bounds) - self._workspace_bytes if bounds else None
