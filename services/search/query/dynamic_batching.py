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

MERGED_HITS = 2**17
"""Hits that a merged search may want in all: what is merged waits for each other, and takes memory together."""

Told = TypeVar("Told")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A search for one vector, and what is to become of its answer."""

    search: Search
    vector: Matrix
    tell: Callable[[SearchResult], Any]


@dataclass(frozen=True, slots=True)
class _Kind:
    """Searches of one kind go together: `wants` is the most hits that any of them asks for, rounded up."""

    index: CollectionIndex
    wants: int
    rest: Hashable


class SearchBatcher:
    """Runs single searches in the threads of `executor`; those that come while all are busy are merged.

    Searches are merged that differ in their vector alone, or in `top_k` as well: the largest is asked for, and each
    caller gets as many as it wants. No more than `max_batch` are merged.
    """

    def __init__(self, executor: BoundedExecutor, *, max_batch: int) -> None:
        self._executor = executor
        self._batcher: DynamicBatcher[_Kind, _Asked, Any] = DynamicBatcher(
            self._start,
            lambda kind: BatchPolicy(max(1, min(max_batch, MERGED_HITS // kind.wants)), max_in_flight=executor.threads),
            cancel_abandoned=False,
        )

    async def search(
        self, index: CollectionIndex, search: Search, vector: Matrix, tell: Callable[[SearchResult], Told]
    ) -> Told:
        """Return what `tell`, run in a thread, makes of what `vector`, shape (dimensions,), finds in `index`.

        Raises as `CollectionIndex.search` does, and what `tell` raises.
        """
        (answer,) = self._batcher.submit(_kind(index, search), _Asked(search, vector, tell))
        return cast(Told, await answer)

    def _start(self, kind: _Kind, asked: Sequence[_Asked]) -> asyncio.Future[Sequence[Any]]:
        """Let a thread search. `run_in_executor` would do the same by three more steps of the loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[Any]] = loop.create_future()
        self._executor.submit(_search, lambda found: loop.call_soon_threadsafe(_set, future, found), kind.index, asked)
        return future


def _kind(index: CollectionIndex, search: Search) -> _Kind:
    """Filters are told apart by `canonical_key`: their `==` takes 1 for True."""
    condition = None if search.condition is None else canonical_key(search.condition)
    wants = 1 << max(7, (search.top_k - 1).bit_length())
    return _Kind(index, wants, (search.space, condition, search.ids, search.score_limit, search.exact))


def _search(
    answer: Callable[[Sequence[Any] | Exception], object], index: CollectionIndex, asked: Sequence[_Asked]
) -> None:
    try:
        found: Sequence[Any] | Exception = _searched(index, asked)
    except Exception as error:
        found = error
    answer(found)


def _set(future: asyncio.Future[Sequence[Any]], answer: Sequence[Any] | Exception) -> None:
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _searched(index: CollectionIndex, asked: Sequence[_Asked]) -> Sequence[Any]:
    most = max(each.search.top_k for each in asked)
    found = index.search(replace(asked[0].search, top_k=most), np.stack([each.vector for each in asked]))
    return list(map(_told, asked, found))


def _told(asked: _Asked, found: SearchResult) -> Any:
    try:
        if len(found.hits) > asked.search.top_k:
            found = replace(found, hits=found.hits[: asked.search.top_k])
        return asked.tell(found)
    except Exception as error:  # of this caller alone
        return error
