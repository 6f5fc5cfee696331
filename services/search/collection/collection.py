"""A collection in the memory of this process: ids, metadata and the vectors of its spaces, version by version.

Readers never wait for the writer, nor the writer for readers. An item that is written again gets another row; a row
never changes while anyone can see it. A version is a mask over the rows, published whole: a search pins the newest
one and sees nothing else until it is done. Rows that a version no longer shows are used again once no search has an
older one pinned.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO

import numpy as np

from services.common.errors import SpaceNotFoundError
from services.common.filters import Filter, canonical_key
from services.common.vectors import Matrix
from services.common.versions import Version
from services.search.ann.manager import BuildContext
from services.search.collection.metadata import MetadataColumns
from services.search.collection.read_view import LocalReadView, Reader
from services.search.collection.row_ids import RowIds
from services.search.collection.space import Answer, SpaceIndex
from services.search.collection.versions import PublishedVersion, VersionSet
from services.search.core.change_feed import ChangeBatch, Space
from services.search.core.collection_index import Mode, ReadView, Search, SearchResult, SpaceState
from services.search.core.hits import Hits
from services.search.core.ordering import apply_score_limit, break_ties
from services.search.core.portable_index import CollectionExport
from services.search.core.vector_index import Numbers, Ranking, Scores, Selection, VectorIndex

EMPTY_RANKING = Ranking(np.empty(0, np.int64), np.empty(0, np.float32))
FULL_RANKING_SHARE = 1 / 4
"""From this share of the candidates on, a ranking for pages is of all of them: to find the best first costs more."""


class LocalCollectionIndex:
    """`PortableIndex`, and `SupportsReadViews`, in the memory of this process."""

    def __init__(
        self, spaces: Sequence[Space], make_index: Callable[[Space], VectorIndex], context: BuildContext | None = None
    ) -> None:
        self._spaces = {space.name: SpaceIndex(space, make_index(space), context) for space in spaces}
        self._build_context = context
        self._pending_spaces: Sequence[Space] = ()
        self._ids = RowIds()
        self._metadata = MetadataColumns()
        self._pending: dict[str, int | None] = {}
        self._names = sorted(self._spaces)
        self._versions = VersionSet()
        self._moved_round = -1

    @property
    def version(self) -> Version | None:
        """The version published last; None before the first."""
        newest = self._versions.newest
        return newest.version if newest else None

    def space(self, name: str) -> Space:
        return self._space(name).space

    def states(self) -> Sequence[SpaceState]:
        """Return the states; memory of no single space (ids, metadata, columns) is divided evenly among the spaces."""
        if not self._versions.newest:
            return []
        shared_bytes = (self._ids.memory_bytes + self._metadata.memory_bytes) // len(self._spaces)
        with self._versions.pin() as published:
            return [self._state(published, space, shared_bytes) for space in self._by_name]

    def write(self, batch: ChangeBatch) -> None:
        self._release_rows(self._versions.vacuum())
        self._pending_spaces = batch.spaces or self._pending_spaces
        for item_id in batch.deleted_ids:
            self._supersede(item_id, None)
        rows = np.array(self._ids.allocate(batch.ids), np.int64)
        self._metadata.write(rows, batch.metadata, self._round_number)
        try:
            for name, space_vectors in batch.vectors.items():
                self._spaces[name].write(rows[space_vectors.rows], space_vectors.vectors)
        except BaseException:  # a retry takes other rows: these must not stay
            self._release_rows(rows.tolist())
            raise
        for item_id, row in zip(batch.ids, rows.tolist(), strict=True):
            self._supersede(item_id, row)

    def publish(self, version: Version) -> None:
        newest = self._versions.newest
        visible = np.zeros(len(self._ids), np.bool_)
        if newest:
            visible[: len(newest.visible)] = newest.visible
        self._moved_round = self._round_number
        moved = [(self._ids.assign(item_id, row), row) for item_id, row in self._pending.items()]
        retired = [old for old, _ in moved if old is not None]
        visible[np.array(retired, np.int64)] = False
        visible[np.array([new for _, new in moved if new is not None], np.int64)] = True
        self._versions.publish(PublishedVersion(version, self._round_number, visible), retired)
        self._pending = {}
        self._configure()

    def rollback(self) -> None:
        self._release_rows([row for row in self._pending.values() if row is not None])
        self._pending, self._pending_spaces = {}, ()

    def close(self) -> None:
        for space in self._spaces.values():
            space.close()

    def search(self, search: Search, queries: Matrix) -> Sequence[SearchResult]:
        with self._versions.pin() as published:
            return self._search(published, search, queries)

    def open_view(self) -> ReadView:
        return LocalReadView(self._versions, Reader(self._search, self._rank, self._hits))

    def item_ids(self, space: str) -> tuple[list[str], Version]:
        index = self._space(space)
        with self._versions.pin() as published:
            rows = np.flatnonzero(published.visible)
            return [self._ids[row] for row in rows[index.has_vectors(rows)].tolist()], published.version

    @contextmanager
    def export(self) -> Iterator[CollectionExport]:
        with self._versions.pin() as published:
            rows = np.flatnonzero(published.visible)
            spaces = [space.export(rows) for space in self._by_name]
            yield CollectionExport(
                published.version, len(rows), lambda begin, end: self._ids_and_metadata(rows[begin:end]), spaces
            )

    def load_vectors(self, space: str, items: Numbers, slots: Numbers, vectors: Matrix) -> None:
        """Load vectors into an empty index, in which an item's number is its row."""
        self._space(space).load_vectors(items, slots, vectors)

    def load_ann_index(self, space: str, file: BinaryIO, current: Numbers) -> None:
        self._space(space).load_ann_index(file, current)

    def _configure(self) -> None:
        """Let the spaces be what the version just published says, and have done what its writes make due."""
        for space in self._pending_spaces:
            self._spaces[space.name].space = space
        self._pending_spaces = ()
        for index in self._spaces.values():
            index.maintain()

    @property
    def _by_name(self) -> Sequence[SpaceIndex]:
        return [self._spaces[name] for name in sorted(self._spaces)]

    def _space(self, name: str) -> SpaceIndex:
        if name not in self._spaces:
            raise SpaceNotFoundError(name, sorted(self._spaces))
        return self._spaces[name]

    def _state(self, published: PublishedVersion, index: SpaceIndex, shared_bytes: int) -> SpaceState:
        space = index.space
        count = self._selection(published, space.name, None).count
        memory_bytes = index.memory_bytes + shared_bytes
        values = (index.engine, count, memory_bytes, published.version, space.config)
        return SpaceState(space, *values, *index.status, index.recall)

    def _selection_of_ids(self, published: PublishedVersion, search: Search) -> Selection:
        rows = np.intersect1d(self._rows(published, search.condition), self._rows_of(published, search.ids))
        return self._space(search.space).selection(rows)

    def _rows_of(self, published: PublishedVersion, ids: Collection[str]) -> Numbers:
        """Return the rows that hold `ids` in `published`; where a newer one has moved some, look through all."""
        before = self._moved_round
        known = {item_id: self._ids.row_of(item_id) for item_id in ids}
        rows = [row for row in known.values() if row is not None and row < len(published.visible)]
        unmoved = before == self._moved_round == published.round_number  # so what is not known is not there
        if unmoved or (len(rows) == len(known) and published.visible[rows].all()):
            return np.array(rows, np.int64)
        return np.array(
            [row for row in np.flatnonzero(published.visible).tolist() if self._ids[row] in known], np.int64
        )

    @property
    def _round_number(self) -> int:
        newest = self._versions.newest
        return newest.round_number + 1 if newest else 0

    def _supersede(self, item_id: str, row: int | None) -> None:
        """Let `row` hold the item in the version to come; a row that was to hold it before has never been seen."""
        unseen = self._pending.get(item_id)
        if unseen is not None:
            self._release_rows([unseen])
        self._pending[item_id] = row

    def _release_rows(self, rows: Sequence[int]) -> None:
        released = np.array(rows, np.int64)
        for space in self._spaces.values():
            space.release(released)
        self._metadata.release(released)
        self._ids.release(released)

    def _ids_and_metadata(self, rows: Numbers) -> tuple[list[str], list[str]]:
        return self._ids.of(rows), self._metadata.of(rows)

    def _search(self, published: PublishedVersion, search: Search, queries: Matrix) -> Sequence[SearchResult]:
        selection = self._selection_for(published, search)
        if not selection.count:
            return [SearchResult([], 0, published.version)] * len(queries)
        answers = self._answers(published, search, queries, selection)
        return [self._to_result(published, search, selection, answer) for answer in answers]

    def _answers(
        self, published: PublishedVersion, search: Search, queries: Matrix, selection: Selection
    ) -> Sequence[Answer]:
        space = self._space(search.space)
        if search.exact or search.ids or not space.has_ann_index:
            return [Answer(ranking, Mode.EXACT) for ranking in space.search(queries, search.top_k, selection)]
        share = self._share(published, search, selection)
        if space.may_approximate(share):
            self._sample_recall(search, queries)
        return space.answer(queries, search.top_k, selection, share)

    def _share(self, published: PublishedVersion, search: Search, selection: Selection) -> float:
        """Return what share of the space's vectors a filter leaves."""
        if search.condition is None:
            return 1.0
        return selection.count / self._selection(published, search.space, None).count

    def _sample_recall(self, search: Search, queries: Matrix) -> None:
        """Have a share of `queries` repeated behind the searches."""
        if self._build_context:
            for number in self._build_context.monitor.sample(len(queries)):
                self._build_context.monitor.submit(partial(self._measure_recall, search, queries[number].copy()))

    def _measure_recall(self, search: Search, query: Matrix) -> None:
        """Search by `query` approximately and exactly, in the newest version, to know how far the two differ."""
        with self._versions.pin() as published:
            selection = self._selection(published, search.space, search.condition)
            if selection.count:
                share = self._share(published, search, selection)
                self._space(search.space).measure_recall(query, selection, share)

    def _to_result(
        self, published: PublishedVersion, search: Search, selection: Selection, answer: Answer
    ) -> SearchResult:
        ordered = self._order(answer.ranking, search, search.top_k)
        hits = self._hits(ordered.slots, ordered.scores)
        return SearchResult(hits, selection.count, published.version, answer.mode, answer.ranking.compared)

    def _rank(self, published: PublishedVersion, search: Search, query: Matrix) -> tuple[Ranking, int]:
        """Return the `top_k` best rows in order, or all where they are not many more, and the number of candidates."""
        space, selection = self._space(search.space), self._selection_for(published, search)
        if not selection.count:
            return EMPTY_RANKING, 0
        if search.top_k >= selection.count * FULL_RANKING_SHARE:
            ranking, depth = space.rank(query, selection), selection.count
        else:
            (ranking,), depth = space.search(query[None], search.top_k, selection), search.top_k
        return self._order(ranking, search, depth), selection.count

    def _order(self, ranking: Ranking, search: Search, top_k: int) -> Ranking:
        if search.score_limit is not None:
            ranking = apply_score_limit(ranking, search.score_limit, self._space(search.space).space.metric)
        return break_ties(ranking, top_k, self._ids.__getitem__)

    def _hits(self, rows: Numbers, scores: Scores) -> Hits:
        return Hits(self._ids.of(rows), scores, self._space_bits(rows), self._names)

    def _space_bits(self, rows: Numbers) -> Numbers:
        """Return for each of `rows` the spaces in which it has a vector: bit b is that of the space self._names[b]."""
        values = np.zeros(len(rows), np.int64)
        for bit, index in enumerate(self._by_name):
            values |= index.has_vectors(rows).astype(np.int64) << bit
        return values

    def _selection_for(self, published: PublishedVersion, search: Search) -> Selection:
        if search.ids:
            return self._selection_of_ids(published, search)
        return self._selection(published, search.space, search.condition)

    def _selection(self, published: PublishedVersion, space: str, condition: Filter | None) -> Selection:
        key = (space, "" if condition is None else canonical_key(condition))
        selection = self._versions.selection(published, key)
        if selection is None:
            selection = self._space(space).selection(self._rows(published, condition))
            self._versions.cache_selection(published, key, selection)
        return selection

    def _rows(self, published: PublishedVersion, condition: Filter | None) -> Numbers:
        if condition is None:
            return np.flatnonzero(published.visible)
        satisfying = self._metadata.matches(condition, len(published.visible), published.round_number)
        return np.flatnonzero(published.visible & satisfying)
