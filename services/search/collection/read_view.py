"""A version of a local collection that is held from search to search, and rankings read from it in pages."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from services.common.vectors import Matrix
from services.common.versions import Version
from services.search.collection.versions import Lease, PublishedVersion, VersionSet
from services.search.core.collection_index import Page, Search, SearchResult
from services.search.core.hits import Hits
from services.search.core.vector_index import Numbers, Ranking, Scores

GROWTH_FACTOR = 2
"""How much deeper than what was read a ranking is made when it must go on: all pages together cost few rankings."""


class Reader:
    """How a snapshot is read: what `LocalCollectionIndex` can do in any of its versions."""

    def __init__(
        self,
        search: Callable[[PublishedVersion, Search, Matrix], Sequence[SearchResult]],
        rank: Callable[[PublishedVersion, Search, Matrix], tuple[Ranking, int]],
        hits: Callable[[Numbers, Scores], Hits],
    ) -> None:
        """`rank` returns the `top_k` best rows in order, or more, and the number of candidates; it is exact."""
        self.search = search
        self.rank = rank
        self.hits = hits


class LocalReadView:
    """`ReadView` of a `LocalCollectionIndex`."""

    def __init__(self, versions: VersionSet, reader: Reader) -> None:
        self._versions = versions
        self._reader = reader
        self._lease: Lease = versions.lease()

    @property
    def version(self) -> Version:
        return self._lease.published.version

    def search(self, search: Search, queries: Matrix) -> Sequence[SearchResult]:
        with self._versions.pin_lease(self._lease) as published:
            return self._reader.search(published, search, queries)

    def pages(self, search: Search, query: Matrix) -> "LocalPages":
        return LocalPages(self._versions, self._lease, self._reader, search, query)

    def release(self) -> None:
        self._versions.release(self._lease)


class LocalPages:
    """`Pages` over a ranking that is remembered as deep as it was read, 8 bytes a hit, and made deeper when needed."""

    def __init__(self, versions: VersionSet, lease: Lease, reader: Reader, search: Search, query: Matrix) -> None:
        self._versions = versions
        self._lease = lease
        self._reader = reader
        self._search = search
        self._query = query
        self._rows = np.empty(0, np.int32)
        self._scores: Scores = np.empty(0, np.float32)
        self._candidates = 0
        self._complete = False
        self._lock = threading.Lock()

    def page(self, begin: int, size: int) -> Page:
        with self._versions.pin_lease(self._lease) as published, self._lock:
            compared = self._extend(published, begin + size + 1)
            rows = self._rows[begin : begin + size].astype(np.int64)
            hits = self._reader.hits(rows, self._scores[begin : begin + size])
            found = SearchResult(hits, self._candidates, published.version, compared=compared)
            return Page(found, more=len(self._rows) > begin + size)

    def _extend(self, published: PublishedVersion, depth: int) -> int:
        """See to it that the ranking is `depth` deep, or whole; return how many vectors were compared for that."""
        if self._complete or len(self._rows) >= depth:
            return 0
        depth = max(depth, GROWTH_FACTOR * len(self._rows))
        ranking, self._candidates = self._reader.rank(published, replace(self._search, top_k=depth), self._query)
        self._rows, self._scores = ranking.slots.astype(np.int32), ranking.scores
        self._complete = len(self._rows) < depth or len(self._rows) == self._candidates
        return ranking.compared
