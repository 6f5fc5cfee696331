"""Hits by column: thousands of them cost a few arrays, not an object each."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import starmap
from typing import Self, overload

import numpy as np

from services.search.core.collection_index import Hit
from services.search.core.vector_index import Numbers, Scores

Names = Sequence[str]


class Hits(Sequence[Hit]):
    """A sequence of `Hit` that holds ids, scores and sets of spaces as columns; the objects are made when asked for.

    Whatever takes hits takes these. Who tells many of them reads the columns: `columns_of` gives them for any hits.
    """

    __slots__ = ("_held", "_names", "ids", "scores")

    def __init__(self, ids: Sequence[str], scores: Scores, held: Numbers, names: Names) -> None:
        """Bit b of held[i] says whether hit i has a vector in the space names[b]."""
        self.ids = ids
        self.scores = scores
        self._held = held
        self._names = names

    @classmethod
    def of(cls, hits: Iterable[Hit]) -> Self:
        """Return `hits` by column."""
        listed = list(hits)
        names = sorted({name for hit in listed for name in hit.spaces})
        held = [sum(1 << names.index(name) for name in hit.spaces) for hit in listed]
        scores = np.array([hit.score for hit in listed], np.float32)
        return cls([hit.item_id for hit in listed], scores, np.array(held, np.int64), names)

    @property
    def spaces(self) -> list[Names]:
        """For each hit the spaces in which the item has a vector, by name."""
        held = self._held.tolist()
        sets = {bits: self._set(bits) for bits in set(held)}
        return [sets[bits] for bits in held]

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> Hit: ...

    @overload
    def __getitem__(self, place: slice) -> "Hits": ...

    def __getitem__(self, place: int | slice) -> "Hit | Hits":
        if isinstance(place, slice):
            return Hits(self.ids[place], self.scores[place], self._held[place], self._names)
        return Hit(self.ids[place], float(self.scores[place]), self._set(int(self._held[place])))

    def __iter__(self) -> Iterator[Hit]:
        return starmap(Hit, zip(self.ids, self.scores.tolist(), self.spaces, strict=True))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def _set(self, bits: int) -> Names:
        return [name for bit, name in enumerate(self._names) if bits >> bit & 1]

    __hash__ = None  # type: ignore[assignment]  # equal to lists, which have none


def columns_of(hits: Sequence[Hit]) -> Hits:
    """Return `hits` by column, as they are where they are so already."""
    return hits if isinstance(hits, Hits) else Hits.of(hits)
