"""What search asks of a vector index: nearest neighbours among numbered slots."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from services.common.index_config import VectorStorage
from services.common.vectors import Matrix

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]
Bits = NDArray[np.uint8]
Scores = NDArray[np.float32]

MAX_LISTED = 4096
MAX_LISTED_SHARE = 1 / 64


@dataclass(frozen=True, slots=True)
class Selection:
    """The slots that a search ranks, in the form that suits their number.

    `count` slots, all below `extent`. Few are `listed`, ascending; of many there are `bits`, one a slot, the first
    slot in the lowest bit of the first byte. Neither: every slot below `extent`.
    """

    count: int
    extent: int
    listed: Numbers | None = None
    bits: Bits | None = None

    @classmethod
    def of(cls, slots: Numbers, extent: int) -> Self:
        """Select `slots`, each once and below `extent`."""
        count = len(slots)
        if count <= min(MAX_LISTED, extent * MAX_LISTED_SHARE):
            return cls(count, extent, listed=np.sort(slots))
        if count == extent:
            return cls(count, extent)
        mask = np.zeros(extent, np.bool_)
        mask[slots] = True
        return cls(count, extent, bits=np.packbits(mask, bitorder="little"))

    def has(self, slots: Numbers) -> Mask:
        """Return for each of `slots`, of any shape, whether it is selected; negative ones never are."""
        inside: Mask = (slots >= 0) & (slots < self.extent)
        if self.listed is not None:
            inside &= np.isin(slots, self.listed)
        elif self.bits is not None:
            known = np.where(inside, slots, 0)
            inside &= (self.bits[known >> 3] >> (known & 7).astype(np.uint8) & 1).astype(np.bool_)
        return inside

    def slots(self) -> Numbers:
        """Return the slots, ascending."""
        if self.listed is not None:
            return self.listed
        if self.bits is None:
            return np.arange(self.extent)
        return np.flatnonzero(np.unpackbits(self.bits, count=self.extent, bitorder="little"))


@dataclass(frozen=True, slots=True)
class Ranking:
    """Slots found and their scores, best first, equal scores in no promised order.

    `compared` is how many vectors were scored as float32 to find that out; an engine that proposes candidates by other
    means counts those alone.
    """

    slots: Numbers
    scores: Scores
    compared: int = 0


class VectorIndex(Protocol):
    """Nearest neighbours in one space of one collection. Implementations pass `tests.contract.vector_index`.

    Slots are numbers from 0 that the caller gives out, densely. Calls block; run them in a thread. Searches may run
    in several threads, next to one writer: the caller sees to it that no slot is written while a selection that holds
    it is searched, and selects no slot that was never written.
    """

    @property
    def engine(self) -> str:
        """Name of the engine, as the API tells it."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that vectors take."""
        ...

    def write(self, slots: Numbers, vectors: Matrix) -> None:
        """Store row i of `vectors`, shape (len(slots), dimensions), in slots[i], over what was there; slots differ."""
        ...

    def search(self, queries: Matrix, top_k: int, selection: Selection) -> Sequence[Ranking]:
        """Return for each of `queries`, shape (n, dimensions), the selected slots whose vectors are nearest.

        They are the `top_k` best, or all where there are fewer, and every other one whose score equals the last one's,
        so that the caller can break ties. Scores are those of `services.search.core.scoring`, bit for bit.
        """
        ...

    def rank(self, query: Matrix, top_k: int, slots: Numbers) -> Ranking:
        """Return the best of `slots` for one query, shape (dimensions,), as `search` does, comparing all of them."""
        ...

    def vectors(self, slots: Numbers) -> Matrix:
        """Return the vectors of `slots` as they are held, shape (len(slots), dimensions): see `scoring.prepared`."""
        ...


@runtime_checkable
class SupportsVectorStorage(Protocol):
    """A `VectorIndex` that scans its vectors in a form of their own, which can be changed while it is searched."""

    def store_as(self, storage: VectorStorage) -> None:
        """Scan `storage` from now on. The writer calls it; searches go on meanwhile, and answers stay the same."""
        ...
