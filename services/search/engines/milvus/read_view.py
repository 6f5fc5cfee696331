"""One version of a collection in Milvus, as searches see it."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from services.common.errors import FilterError
from services.common.filters import Filter
from services.common.index_config import Exact
from services.common.vectors import Matrix
from services.common.versions import Version
from services.search.core.change_feed import Space
from services.search.core.collection_index import Mode, Search, SearchResult
from services.search.engines.milvus.client import MAX_RESULTS, Milvus
from services.search.engines.milvus.exact import ExactSearch
from services.search.engines.milvus.filter import any_omitted, expression, uncertain
from services.search.engines.milvus.metadata_encoding import item_token
from services.search.engines.milvus.ranking import TopK, normalize_queries, rank_rows
from services.search.engines.milvus.schema import engine_of, search_params
from services.search.engines.milvus.space import MilvusSpace, visible
from services.search.engines.milvus.version_pointer import StoredSpace, VersionPointer

MAX_GPU_RESULTS = 1024
MAX_COUNTS = 256

_MORE = 16


class MilvusReadView:
    """The version that a marker names. What was counted in it is remembered."""

    def __init__(self, milvus: Milvus, pointer: VersionPointer, spaces: Mapping[str, Space]) -> None:
        self.pointer = pointer
        self.spaces = {
            name: MilvusSpace(milvus, stored.name, replace(spaces[name], config=stored.config))
            for name, stored in pointer.spaces.items()
        }
        self._gpu = milvus.options.gpu
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def version(self) -> Version:
        """Which version it is."""
        return self.pointer.version

    def engine(self, space: str) -> str:
        """Return the name of what finds vectors in `space`."""
        return engine_of(self.spaces[space].space.config, gpu=self._gpu)

    def count(self, space: str, condition: str = "") -> int:
        """Return how many items have a vector in `space` and satisfy `condition`, an expression."""
        key = (space, condition)
        with self._lock:
            if key in self._counts:
                self._counts.move_to_end(key)
                return self._counts[key]
        counted = self.spaces[space].count(visible(self.pointer.round_number, condition))
        with self._lock:
            self._counts[key] = counted
            if len(self._counts) > MAX_COUNTS:
                self._counts.popitem(last=False)
        return counted

    def ids(self, space: str) -> list[str]:
        """Return the ids of all items with a vector in `space`."""
        return list(self.spaces[space].ids(self.pointer.round_number))

    def search(self, search: Search, queries: Matrix) -> list[SearchResult]:
        """Return what each of `queries` finds."""
        condition = "" if search.condition is None else self._expression(search.space, search.condition)
        wanted = visible(self.pointer.round_number, condition)
        if search.ids:
            items = sorted(map(item_token, search.ids))
            metric = self.spaces[search.space].space.metric
            ranked = rank_rows(self.spaces[search.space].among(items, wanted), search, queries, metric)
            return [self._found(best, best.compared) for best in ranked]
        candidates = self.count(search.space, condition)
        if not candidates:
            return [SearchResult([], 0, self.version)] * len(queries)
        if self._uses_ann(search, candidates):
            return self._search_ann(search, queries, wanted, candidates)
        return [self._found(best, candidates) for best in self._search_exact(search, queries, wanted, candidates)]

    def _expression(self, space: str, condition: Filter) -> str:
        encoded = expression(condition)
        if self.count(space, any_omitted()) and (unknown := self.count(space, uncertain(condition))):
            raise FilterError(f"{unknown} items have more there than Milvus can filter by")
        return encoded

    def _uses_ann(self, search: Search, candidates: int) -> bool:
        config = self.spaces[search.space].space.config
        if search.exact or isinstance(config.kind, Exact) or search.top_k > self._most:
            return False
        return candidates > min(MAX_RESULTS, config.exact_below_selectivity * self.count(search.space))

    def _search_ann(self, search: Search, queries: Matrix, wanted: str, candidates: int) -> list[SearchResult]:
        space = self.spaces[search.space]
        limit = min(candidates, search.top_k + _MORE, self._most)
        params = search_params(space.space.config, self._stored(search.space).indexed, limit)
        found = space.nearest(normalize_queries(queries, space.space.metric), limit, wanted, params)
        top_ks = [
            rank_rows([rows], search, query[None], space.space.metric)[0]
            for query, rows in zip(queries, found, strict=True)
        ]
        return [self._found(best, candidates, Mode.APPROXIMATE) for best in top_ks]

    def _search_exact(self, search: Search, queries: Matrix, wanted: str, candidates: int) -> Sequence[TopK]:
        space = self.spaces[search.space]
        if isinstance(space.space.config.kind, Exact):
            exact = ExactSearch(space, longest=self._stored(search.space).longest, most=self._most)
            return exact.search(search, queries, wanted, candidates)
        return rank_rows(space.scan(wanted), search, queries, space.space.metric)

    @property
    def _most(self) -> int:
        return MAX_GPU_RESULTS if self._gpu else MAX_RESULTS

    def _stored(self, space: str) -> StoredSpace:
        return self.pointer.spaces[space]

    def _found(self, best: TopK, candidates: int, mode: Mode = Mode.EXACT) -> SearchResult:
        hits = [hit for _, _, hit in best.hits]
        return SearchResult(hits, candidates, self.version, mode, best.compared)
