"""The exact ranking of a space in Milvus, which itself computes in float32 and cuts where it likes among equals."""

from collections.abc import Iterator, Sequence

import numpy as np

from services.common.vectors import Matrix
from services.search.core.collection_index import Search
from services.search.engines.milvus.ranking import Best, Reach, asked, best_of
from services.search.engines.milvus.space import MilvusSpace

_MORE = 16
_TIMES_MORE = 4


class ExactSearch:
    """Searches a space whose index compares every row. `longest` is its longest vector, `most` what one search finds.

    Milvus finds somewhat more rows than wanted; they are scored in float64, and where the last of them is farther away
    than any error of float32 explains, the best are among them. Else more are asked for, and at last all are read.
    """

    def __init__(self, space: MilvusSpace, *, longest: float, most: int) -> None:
        self._space = space
        self._longest = longest
        self._most = most

    def bests(self, search: Search, queries: Matrix, wanted: str, candidates: int) -> list[Best]:
        """Return for each of `queries` the best of the `candidates` rows for which the expression `wanted` holds."""
        metric = self._space.space.metric
        bests = [Best(query, search, metric) for query in queries]
        reaches = [Reach(query, metric, self._longest) for query in asked(queries, metric)]
        places = [place for place, reach in enumerate(reaches) if not reach.overflows]
        for limit in self._limits(search.top_k, candidates):
            if places:
                vectors = np.stack([reaches[place].query for place in places])
                found = self._space.nearest(vectors, limit, wanted, {})
                for place, rows in zip(places, found, strict=True):
                    if len(rows.ids) == candidates or reaches[place].covers(rows, limit, search.top_k):
                        bests[place].see(rows)
                places = [place for place in places if not bests[place].compared]
        self._read_all([place for place, best in enumerate(bests) if not best.compared], bests, wanted)
        return bests

    def _limits(self, top_k: int, candidates: int) -> Iterator[int]:
        """Yield how many rows to ask for, try by try."""
        most = min(candidates, self._most)
        limit = top_k + max(_MORE, top_k // _TIMES_MORE)
        while limit < most:
            yield limit
            limit *= _TIMES_MORE
        yield most

    def _read_all(self, places: Sequence[int], bests: list[Best], wanted: str) -> None:
        if not places:
            return
        queries = np.stack([bests[place].query for place in places])
        ranked = best_of(self._space.scan(wanted), bests[places[0]].search, queries, self._space.space.metric)
        for place, best in zip(places, ranked, strict=True):
            bests[place] = best
