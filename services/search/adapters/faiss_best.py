"""The candidates that the segments of an index propose, gathered: those of the highest bounds."""

from collections.abc import Iterable
from typing import Self

import numpy as np

from services.search.adapters.faiss_segment import Proposal
from services.search.index import Numbers
from services.search.scoring import Doubles


class Best:
    """The `wanted` slots of the highest bounds among those proposed, and all that have no bound."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._slots: Numbers = np.empty(0, np.int64)
        self._bounds: Doubles = np.empty(0)
        self._unbounded: Numbers = np.empty(0, np.int64)
        self._rest = -np.inf

    @classmethod
    def of(cls, wanted: int, parts: "Iterable[Best]") -> Self:
        """Gather what others have gathered."""
        best = cls(wanted)
        for part in parts:
            best.add(0, Proposal(part._slots, part._bounds, part._rest, part._unbounded))
        return best

    @property
    def slots(self) -> Numbers:
        """The slots, in no order."""
        return np.concatenate([self._slots, self._unbounded]) if len(self._unbounded) else self._slots

    @property
    def bounds(self) -> Doubles:
        """The bounds of `slots`, infinite where there is none."""
        return np.concatenate([self._bounds, np.full(len(self._unbounded), np.inf)])

    @property
    def beyond(self) -> float:
        """The bound that a slot must exceed to be among the wanted ones."""
        return float(self._bounds.min()) if len(self._bounds) >= self._wanted else -np.inf

    def leaves_out(self, closeness: float) -> bool:
        """Return whether a slot that is not here may be that close."""
        return -np.inf < self._rest >= closeness

    def add(self, begin: int, proposal: Proposal) -> None:
        """Take up what a segment proposes whose first row is slot `begin`."""
        slots = np.concatenate([self._slots, proposal.rows + begin])
        bounds = np.concatenate([self._bounds, proposal.bounds])
        self._rest = max(self._rest, proposal.rest)
        if len(slots) > self._wanted:
            order = np.argpartition(bounds, -self._wanted)
            kept = order[-self._wanted :]
            slots, bounds = slots[kept], bounds[kept]
            self._rest = max(self._rest, float(bounds.min()))
        self._slots, self._bounds = slots, bounds
        if len(proposal.unbounded):
            self._unbounded = np.concatenate([self._unbounded, proposal.unbounded + begin])
