"""The candidates that the segments of an index propose, gathered: for each query those of the highest bounds."""

from collections.abc import Iterable
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from services.search.adapters.faiss_scan import NOWHERE
from services.search.adapters.faiss_segment import Proposal
from services.search.core.scoring import Doubles
from services.search.core.vector_index import Mask, Numbers

Number = TypeVar("Number", np.int64, np.float64)


class Best:
    """For each query the `wanted` slots of the highest bounds among those proposed, and all that have no bound."""

    def __init__(self, queries: int, wanted: int) -> None:
        self._wanted = wanted
        self._slots: Numbers = np.empty((queries, 0), np.int64)
        self._bounds: Doubles = np.empty((queries, 0))
        self._unbounded: Numbers = np.empty(0, np.int64)
        self._rest: Doubles = np.full(queries, -np.inf)

    @classmethod
    def of(cls, queries: int, wanted: int, parts: "Iterable[Best]") -> Self:
        """Gather what others have gathered."""
        best = cls(queries, wanted)
        for part in parts:
            best.add(0, Proposal(part._slots, part._bounds, part._rest, part._unbounded))
        return best

    @property
    def slots(self) -> Numbers:
        """The slots, shape (queries, n), in no order; `NOWHERE` where a query has fewer."""
        return _with(self._slots, self._unbounded)

    @property
    def bounds(self) -> Doubles:
        """The bounds of `slots`: infinite where there is none, minus infinity where there is no slot."""
        return _with(self._bounds, np.full(len(self._unbounded), np.inf))

    def leaves_out(self, closeness: Doubles) -> Mask:
        """Return for each query whether a slot that is not here may be that close."""
        left: Mask = (self._rest > -np.inf) & (self._rest >= closeness)
        return left

    def add(self, begin: int, proposal: Proposal) -> None:
        """Take up what a segment proposes whose first row is slot `begin`."""
        slots, bounds = proposal.rows + begin, proposal.bounds
        slots[proposal.rows < 0] = NOWHERE
        if self._slots.size:
            slots = np.concatenate([self._slots, slots], axis=1)
            bounds = np.concatenate([self._bounds, bounds], axis=1)
        self._rest = np.maximum(self._rest, proposal.rest)
        if slots.shape[1] > self._wanted:
            order = np.argpartition(bounds, -self._wanted - 1, axis=1)[:, -self._wanted - 1 :]
            queries = np.arange(len(order))[:, None]
            slots, bounds = slots[queries, order], bounds[queries, order]
            self._rest = np.maximum(self._rest, bounds[:, 0])
            slots, bounds = slots[:, 1:], bounds[:, 1:]
        self._slots, self._bounds = slots, bounds
        if len(proposal.unbounded):
            self._unbounded = np.concatenate([self._unbounded, proposal.unbounded + begin])


def _with(numbers: NDArray[Number], unbounded: NDArray[Number]) -> NDArray[Number]:
    if not len(unbounded):
        return numbers
    return np.concatenate([numbers, np.broadcast_to(unbounded, (len(numbers), len(unbounded)))], axis=1)
