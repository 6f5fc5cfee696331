"""A device of PyTorch: how indexes take its memory, multiply on it, and bring results back."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray

from services.common.errors import ServiceUnavailableError
from services.search.core.errors import IndexTooLargeError
from services.search.engines.device.memory import DeviceMemory

ROWS_MULTIPLE = 128
_WORK_BYTES = {"cuda": 128 * 2**20, "cpu": 16 * 2**20}
"""Memory for the scores of a chunk, and for a chunk in float32 where halves cannot be multiplied as they are."""
_WORKSPACES = 3  # what a search takes at a time: scores, what is derived from them, masks and candidates
_UNUSED_SHARE = 0.02  # of a card's memory that is never planned: its libraries' own, and gaps between tensors


class TorchDevice:
    """One device, shared by all indexes on it.

    Work is queued by one thread at a time, in one stream: its order is then the order of the calls, memory that a
    search is done with serves the next one, and the threads wait for their own results only.
    """

    def __init__(self, name: str, memory_bytes: int | None = None) -> None:
        """Take the device called `name`; indexes may take `memory_bytes` of it, or all it has.

        Raises:
            ServiceUnavailableError: there is no such device.
        """
        self.name = name
        self.device = _device(name)
        self._work_bytes = _WORK_BYTES[self.device.type]
        self._is_cuda = self.device.type == "cuda"
        if self._is_cuda:
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False  # sums stay in float32
        self.queueing = threading.Lock()
        self.memory = DeviceMemory(
            name,
            limit_bytes=memory_bytes,
            free_bytes=self._free_bytes if self._is_cuda else None,
            workspace_bytes=_WORKSPACES * self._work_bytes,
        )

    def chunk_rows(self, dimensions: int, queries: int) -> int:
        """Return how many vectors to score at a time for `queries` queries, a multiple of `ROWS_MULTIPLE`."""
        floats_per_row = padded(queries) if self._is_cuda else padded(queries) + dimensions
        return max(ROWS_MULTIPLE, self._work_bytes // (4 * floats_per_row) // ROWS_MULTIPLE * ROWS_MULTIPLE)

    def tensor(self, array: NDArray[Any]) -> Any:
        """Return a copy of `array` on the device."""
        return torch.from_numpy(array).to(self.device, copy=True)

    def products(self, queries: Any, vectors: Any) -> Any:
        """Return the inner products, float32, shape (queries, vectors), of rows of halves, summed in float32."""
        if self._is_cuda:
            return torch.mm(queries, vectors.T, out_dtype=torch.float32)
        return torch.mm(queries.float(), vectors.float().T)

    def sending(self, *tensors: Any) -> Callable[[], Sequence[NDArray[Any]]]:
        """Queue the way of `tensors` to this process; the function returned waits for them, and for nothing later."""
        if not self._is_cuda:
            return lambda: [tensor.numpy() for tensor in tensors]
        copies = [torch.empty_like(tensor, device="cpu", pin_memory=True) for tensor in tensors]
        for copy, tensor in zip(copies, tensors, strict=True):
            copy.copy_(tensor, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(self.device))

        def received() -> Sequence[NDArray[Any]]:
            arrived.synchronize()
            return [copy.numpy() for copy in copies]

        return received

    @contextmanager
    def allocating(self, wanted_bytes: int) -> Iterator[None]:
        """Tell of a device that is full after all, say with another process's tensors, as of an index too large."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            left = self.memory.left_bytes() or 0
            raise IndexTooLargeError(self.name, wanted_bytes, max(0, left)) from error

    @property
    def workspace_bytes(self) -> int:
        """Bytes that searches may take for a moment."""
        return _WORKSPACES * self._work_bytes

    def _free_bytes(self) -> int:
        """Return what the card has free, with what PyTorch keeps of it and does not use."""
        free, total = torch.cuda.mem_get_info(self.device)
        kept = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return int(free + kept - total * _UNUSED_SHARE)


def padded(queries: int) -> int:
    """Return `queries` rounded up to what tensor cores multiply at a time."""
    return -(-queries // 8) * 8


def _device(name: str) -> Any:
    device = torch.device(name)
    if device.type not in _WORK_BYTES:
        raise ServiceUnavailableError(f"device {name!r}", "is none of cuda, cuda:N and cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise ServiceUnavailableError(f"device {name!r}", f"is not there: PyTorch {torch.__version__} sees {there}")
    return device
