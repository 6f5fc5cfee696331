"""Single searches of concurrent callers, run together where they ask the same of the same index."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np

from services.common.concurrency.dynamic_batcher import BatchPolicy, DynamicBatcher
from services.common.concurrency.executors import BoundedExecutor
from services.common.filters import canonical_key
from services.common.vectors import Matrix
from services.search.core.collection_index import CollectionIndex, Search, SearchResult

MAX_MERGED_HITS = 2**17
"""Hits that a merged search may want in all: what is merged waits for each other, and takes memory together."""

Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class _Request:
    """A search for one vector, and what is to become of its answer."""

    search: Search
    vector: Matrix
    serialize: Callable[[SearchResult], Any]


@dataclass(frozen=True, slots=True)
class _BatchKey:
    """Searches of one kind go together: `max_hits` is the most hits that any of them asks for, rounded up."""

    index: CollectionIndex
    max_hits: int
    rest: Hashable


class SearchBatcher:
    """Runs single searches in the threads of `executor`; those that come while all are busy are merged.

    Searches are merged that differ in their vector alone, or in `top_k` as well: the largest is asked for, and each
    caller gets as many as it wants. No more than `max_batch` are merged.
    """

    def __init__(self, executor: BoundedExecutor, *, max_batch: int) -> None:
        self._executor = executor
        self._batcher: DynamicBatcher[_BatchKey, _Request, Any] = DynamicBatcher(
            self._start,
            lambda key: BatchPolicy(
                max(1, min(max_batch, MAX_MERGED_HITS // key.max_hits)), max_in_flight=executor.threads
            ),
            cancel_abandoned=False,
        )

    async def search(
        self, index: CollectionIndex, search: Search, vector: Matrix, serialize: Callable[[SearchResult], Response]
    ) -> Response:
        """Return what `serialize`, run in a thread, makes of what `vector`, shape (dimensions,), finds in `index`.

        Raises as `CollectionIndex.search` does, and what `serialize` raises.
        """
        (answer,) = self._batcher.submit(_batch_key(index, search), _Request(search, vector, serialize))
        return cast(Response, await answer)

    def _start(self, key: _BatchKey, requests: Sequence[_Request]) -> asyncio.Future[Sequence[Any]]:
        """Let a thread search. `run_in_executor` would do the same by three more steps of the loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[Any]] = loop.create_future()
        self._executor.submit(
            _search, lambda result: loop.call_soon_threadsafe(_set, future, result), key.index, requests
        )
        return future


def _batch_key(index: CollectionIndex, search: Search) -> _BatchKey:
    """Filters are told apart by `canonical_key`: their `==` takes 1 for True."""
    condition = None if search.condition is None else canonical_key(search.condition)
    max_hits = 1 << max(7, (search.top_k - 1).bit_length())
    return _BatchKey(index, max_hits, (search.space, condition, search.ids, search.score_limit, search.exact))


def _search(
    answer: Callable[[Sequence[Any] | Exception], object], index: CollectionIndex, requests: Sequence[_Request]
) -> None:
    try:
        result: Sequence[Any] | Exception = _search_batch(index, requests)
    except Exception as error:
        result = error
    answer(result)


def _set(future: asyncio.Future[Sequence[Any]], answer: Sequence[Any] | Exception) -> None:
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _search_batch(index: CollectionIndex, requests: Sequence[_Request]) -> Sequence[Any]:
    most = max(each.search.top_k for each in requests)
    result = index.search(replace(requests[0].search, top_k=most), np.stack([each.vector for each in requests]))
    return list(map(_serialize, requests, result))


def _serialize(request: _Request, result: SearchResult) -> Any:
    try:
        if len(result.hits) > request.search.top_k:
            result = replace(result, hits=result.hits[: request.search.top_k])
        return request.serialize(result)
    except Exception as error:  # of this caller alone
        return error
