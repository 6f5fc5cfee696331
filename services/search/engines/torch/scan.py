"""Scans of vectors on a device of PyTorch: the best keys of all, or every slot whose key reaches a limit.

Keys are those of `services.search.engines.device.bounds`. Under cosine they are what a product says, without what it
may be off by, which is the same for all vectors: it is added to the few that are found.
"""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from services.common.vectors import Metric
from services.search.core.vector_index import Bits, Numbers, Selection
from services.search.engines.device.bounds import SLACK
from services.search.engines.torch.device import ROWS_MULTIPLE, TorchDevice
from services.search.engines.torch.vectors import Segment

GROUPS_PER_WANTED = 4
MASKS_AT_MOST = 16


@dataclass(frozen=True, slots=True)
class Queries:
    """A batch on the device: `directions`, float16, padded; `errors` and `lengths`, float32, shape (count, 1)."""

    count: int
    directions: Any
    errors: Any
    lengths: Any


class TorchScan:
    """Scans under one metric. Calls queue work, so the caller holds `TorchDevice.queueing`."""

    def __init__(self, device: TorchDevice, metric: Metric) -> None:
        self._device = device
        self._metric = metric
        self._masks = _Masks(device)

    def nearest(
        self, segments: Sequence[Segment], queries: Queries, wanted: int, selection: Selection
    ) -> tuple[Any, Any]:
        """Return the `wanted` best keys, or all there are, and their slots, shape (queries, wanted).

        The best come first; -inf is the key of slots not selected.
        """
        keys = torch.empty((queries.count, 0), dtype=torch.float32, device=self._device.device)
        slots = torch.empty((queries.count, 0), dtype=torch.int64, device=self._device.device)
        for begin, part in self._chunks(segments, queries, selection):
            part_keys, places = _best(part, wanted)
            keys, slots = torch.cat([keys, part_keys], 1), torch.cat([slots, places + begin], 1)
            keys, order = keys.topk(min(wanted, keys.shape[1]))
            slots = slots.gather(1, order)
        return keys, slots

    def within(
        self, segments: Sequence[Segment], queries: Queries, limit: np.float32, selection: Selection
    ) -> Callable[[], Numbers]:
        """Queue a search for each slot whose key for the only one of `queries` is at least `limit`, -inf for any."""
        least = max(float(limit), torch.finfo(torch.float32).min)  # slots not selected have -inf
        found = [
            self._device.sending((part[0] >= least).nonzero()[:, 0] + begin)
            for begin, part in self._chunks(segments, queries, selection)
        ]
        return lambda: np.concatenate([np.empty(0, np.int64), *(received()[0] for received in found)])

    def _chunks(self, segments: Sequence[Segment], queries: Queries, selection: Selection) -> Iterator[tuple[int, Any]]:
        """Yield first slots, and keys of shape (queries, rows); what is not selected has -inf."""
        mask = None if selection.bits is None else self._masks.of(selection.bits)
        for segment in segments:
            rows = min(segment.rows, selection.extent - segment.begin)
            step = self._device.chunk_rows(segment.directions.shape[1], queries.count)
            for first in range(0, rows, step):
                chunk = slice(first, min(first + step, segment.rows))
                keys = self._keys(segment, chunk, queries)
                if mask is None:
                    keys[:, rows - first :] = -torch.inf
                else:
                    keys.masked_fill_(~mask.between(segment.begin + first, keys.shape[1]), -torch.inf)
                yield segment.begin + first, keys

    def _keys(self, segment: Segment, chunk: slice, queries: Queries) -> Any:
        products = self._device.products(queries.directions, segment.directions[chunk])[: queries.count]
        match self._metric:
            case Metric.COSINE:
                return products
            case Metric.DOT_PRODUCT:
                return products.add_(queries.errors).mul_(segment.lengths[chunk])
            case Metric.EUCLIDEAN:
                lengths = segment.lengths[chunk]
                twice = products.add_(queries.errors).mul_(2 * queries.lengths)
                return twice.sub_(lengths * (1 - SLACK)).mul_(lengths)


def _best(keys: Any, wanted: int) -> tuple[Any, Any]:
    """Return the `wanted` best of each row of `keys` and their places.

    They lie in the `wanted` groups whose best keys are best, so that all but these are read once only.
    """
    queries, rows = keys.shape
    groups = rows // ROWS_MULTIPLE
    if groups < GROUPS_PER_WANTED * wanted or rows % ROWS_MULTIPLE:
        best, places = keys.topk(min(wanted, rows))
        return best, places
    grouped = keys.view(queries, groups, ROWS_MULTIPLE)
    chosen = grouped.amax(2).topk(wanted, sorted=False).indices
    near = grouped.gather(1, chosen[:, :, None].expand(-1, -1, ROWS_MULTIPLE)).flatten(1)
    best, places = near.topk(wanted)
    return best, chosen.gather(1, places // ROWS_MULTIPLE) * ROWS_MULTIPLE + places % ROWS_MULTIPLE


@dataclass(frozen=True, slots=True)
class _Mask:
    """Bits of slots on the device, the first slot in the lowest bit of the first byte, and the places of bits."""

    packed: Any
    shifts: Any

    def between(self, begin: int, rows: int) -> Any:
        """Return one bool a slot; `begin` and `rows` are multiples of 8."""
        bits = (self.packed[begin // 8 : (begin + rows) // 8, None] >> self.shifts) & 1
        mask = bits.flatten().bool()
        return torch.nn.functional.pad(mask, (0, rows - len(mask)))


class _Masks:
    """Bits of selections used lately, which a search need not bring to the device again."""

    def __init__(self, device: TorchDevice) -> None:
        self._device = device
        self._shifts = torch.arange(8, dtype=torch.uint8, device=device.device)
        self._kept: OrderedDict[int, tuple[weakref.ref[Bits], Any]] = OrderedDict()

    def of(self, bits: Bits) -> _Mask:
        known, packed = self._kept.pop(id(bits), (None, None))
        if known is None or known() is not bits:
            packed = self._device.tensor(bits)
        self._kept[id(bits)] = (weakref.ref(bits), packed)
        if len(self._kept) > MASKS_AT_MOST:
            self._kept.popitem(last=False)
        return _Mask(packed, self._shifts)
