"""The exact ranking of a space in Milvus, which itself computes in float32 and cuts where it likes among equals."""

from collections.abc import Iterator, Sequence

import numpy as np

from services.common.vectors import Matrix
from services.search.core.collection_index import Search
from services.search.engines.milvus.ranking import ErrorBound, TopK, normalize_queries, rank_rows
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

    def search(self, search: Search, queries: Matrix, wanted: str, candidates: int) -> list[TopK]:
        """Return for each of `queries` the best of the `candidates` rows for which the expression `wanted` holds."""
        metric = self._space.space.metric
        top_ks = [TopK(query, search, metric) for query in queries]
        bounds = [ErrorBound(query, metric, self._longest) for query in normalize_queries(queries, metric)]
        places = [place for place, bound in enumerate(bounds) if not bound.overflows]
        for limit in self._limits(search.top_k, candidates):
            if places:
                vectors = np.stack([bounds[place].query for place in places])
                found = self._space.nearest(vectors, limit, wanted, {})
                for place, rows in zip(places, found, strict=True):
                    if len(rows.ids) == candidates or bounds[place].covers(rows, limit, search.top_k):
                        top_ks[place].add(rows)
                places = [place for place in places if not top_ks[place].compared]
        self._read_all([place for place, best in enumerate(top_ks) if not best.compared], top_ks, wanted)
        return top_ks

    def _limits(self, top_k: int, candidates: int) -> Iterator[int]:
        """Yield how many rows to ask for, try by try."""
        most = min(candidates, self._most)
        limit = top_k + max(_MORE, top_k // _TIMES_MORE)
        while limit < most:
            yield limit
            limit *= _TIMES_MORE
        yield most

    def _read_all(self, places: Sequence[int], top_ks: list[TopK], wanted: str) -> None:
        if not places:
            return
        queries = np.stack([top_ks[place].query for place in places])
        ranked = rank_rows(self._space.scan(wanted), top_ks[places[0]].search, queries, self._space.space.metric)
        for place, best in zip(places, ranked, strict=True):
            top_ks[place] = best
