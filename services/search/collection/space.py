"""One space of one collection: which row's vector lies in which slot of its `VectorIndex`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np

from services.common.index_config import Exact
from services.common.vectors import Matrix
from services.search.ann.manager import AnnManager, BuildContext, Generation, SlotSource
from services.search.ann.modification_log import ModificationLog
from services.search.ann.recall_monitor import RECALL_AT, recall_of
from services.search.core.change_feed import Space
from services.search.core.collection_index import Mode, Recall, State
from services.search.core.portable_index import SpaceExport
from services.search.core.slot_table import EMPTY, SlotTable, grow
from services.search.core.vector_index import Mask, Numbers, Ranking, Selection, SupportsVectorStorage, VectorIndex

EMPTY_RANKING = Ranking(np.empty(0, np.int64), np.empty(0, np.float32))


@dataclass(frozen=True, slots=True)
class Answer:
    """What one query found, and how."""

    ranking: Ranking
    mode: Mode


class SpaceIndex:
    """Vectors by row of the collection. Rows without a vector in this space take no memory for one.

    One writer at a time; readers at any time, for rows that are not written or released meanwhile. Tables that grow are
    replaced, so a reader goes on with the one it took.
    """

    def __init__(self, space: Space, index: VectorIndex, context: BuildContext | None = None) -> None:
        self.space = space
        self._index = index
        self._modifications = ModificationLog()
        slots = SlotSource(self._used_slots, index.vectors, self._modifications)
        self._ann = AnnManager(space, slots, context) if context else None
        self._slot_of_row: SlotTable = np.empty(0, np.int32)
        self._row_of_slot: SlotTable = np.empty(0, np.int32)
        self._free: list[int] = []
        self._extent = 0

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory taken by vectors, tables and what was built for searches."""
        tables = self._slot_of_row.nbytes + self._row_of_slot.nbytes + self._modifications.memory_bytes
        generation = self._generation
        return self._index.memory_bytes + tables + (generation.index.memory_bytes if generation else 0)

    @property
    def engine(self) -> str:
        """Name of the engine that answers where nothing calls for exactness."""
        generation = self._serving
        return generation.index.engine if generation else self._index.engine

    @property
    def status(self) -> tuple[State, str]:
        """How far the index is from what the space's config asks for, and why."""
        if self._ann:
            return self._ann.status(self._count)
        if isinstance(self.space.config.kind, Exact):
            return State.READY, ""
        return State.FAILED, "this process builds no approximate indexes: the exact one answers"

    @property
    def has_ann_index(self) -> bool:
        """Whether there is an approximate index, whether it may answer or not."""
        return self._generation is not None

    @property
    def recall(self) -> Sequence[Recall]:
        """What is known of the recall of the approximate index."""
        generation = self._generation
        return generation.recall.recalls() if generation else ()

    def maintain(self) -> None:
        """Have done, behind the searches, what the config asks for and what was written makes due."""
        if self._ann:
            self._ann.configure(self.space.config)
            self._ann.schedule_work(self._count)
        self._apply_storage()

    def _apply_storage(self) -> None:
        """Let the exact index scan what the config says; until an approximate one answers, what it scanned before."""
        kind, generation = self.space.config.kind, self._generation
        if isinstance(self._index, SupportsVectorStorage) and (
            isinstance(kind, Exact) or (generation and generation.kind == kind)
        ):
            self._index.store_as(self.space.config.scanned)

    def close(self) -> None:
        """Build no more."""
        if self._ann:
            self._ann.close()

    def write(self, rows: Numbers, vectors: Matrix) -> None:
        """Store row i of `vectors` as that of rows[i], which has none yet."""
        if not len(rows):
            return
        extent, slots = self._extent, self._allocate(len(rows))
        try:
            with self._modifications.recording(slots):
                self._index.write(slots, vectors)
                self._map(rows, slots)
        except BaseException:  # they are as if never taken, lest room be sought for them by the next
            self._extent = extent
            self._free.extend(slots[slots < extent].tolist())
            raise

    def load_vectors(self, rows: Numbers, slots: Numbers, vectors: Matrix) -> None:
        """Store row i of `vectors` as that of rows[i], in slots[i]: ascending, above all there are; others are free."""
        if not len(rows):
            return
        unused = np.setdiff1d(np.arange(self._extent, int(slots[-1])), slots, assume_unique=True)
        self._free.extend(unused.tolist())
        self._extent = int(slots[-1]) + 1
        with self._modifications.recording(slots):
            self._index.write(slots, vectors)
            self._map(rows, slots)

    def export(self, rows: Numbers) -> SpaceExport:
        """Return the vectors of `rows`, those that have one; items are numbered by their place in `rows`."""
        items = np.flatnonzero(self.has_vectors(rows))
        slots = self._slot_of_row[rows[items]].astype(np.int64)
        order = np.argsort(slots)
        built = self._ann.export(slots[order]) if self._ann else None
        return SpaceExport(self.space, items[order], slots[order], self._index.vectors, built)

    def load_ann_index(self, file: BinaryIO, current: Numbers) -> None:
        """Load the approximate index in `file`; see `PortableIndex.load_ann_index`."""
        kind = self.space.config.kind
        if self._ann is None or isinstance(kind, Exact):
            raise ValueError("this process has no approximate index here")
        self._ann.load(file, kind, current)

    def release(self, rows: Numbers) -> None:
        """Give the vectors of `rows` up; rows without one are passed over."""
        known = rows[rows < len(self._slot_of_row)]
        slots = self._slot_of_row[known]
        self._slot_of_row[known] = EMPTY
        self._free.extend(slots[slots != EMPTY].tolist())

    def has_vectors(self, rows: Numbers) -> Mask:
        """Return for each of `rows` whether it has a vector."""
        table = self._slot_of_row
        held: Mask = np.zeros(len(rows), np.bool_)
        known = rows < len(table)
        held[known] = table[rows[known]] != EMPTY
        return held

    def selection(self, rows: Numbers) -> Selection:
        """Return a selection of those of `rows` that have a vector."""
        table, extent = self._slot_of_row, self._extent
        slots = table[rows[rows < len(table)]]
        return Selection.of(slots[slots != EMPTY].astype(np.int64), extent)

    def search(self, queries: Matrix, top_k: int, selection: Selection) -> Sequence[Ranking]:
        """Return rows as `VectorIndex.search` returns slots."""
        return [self._to_rows(ranking) for ranking in self._index.search(queries, top_k, selection)]

    def answer(self, queries: Matrix, top_k: int, selection: Selection, share: float) -> Sequence[Answer]:
        """Return as `search` does, by the approximate index where the config lets it answer.

        `share` is that of `selection` among all that a search could select.
        """
        if not self._serving or not self.may_approximate(share):
            return [Answer(ranking, Mode.EXACT) for ranking in self.search(queries, top_k, selection)]
        return self._approximate(queries, top_k, selection)

    def may_approximate(self, share: float) -> bool:
        """Return whether what is left by a filter that leaves `share` may be searched by an approximate index."""
        return self._generation is not None and share > self.space.config.exact_below_selectivity

    def measure_recall(self, query: Matrix, selection: Selection, share: float) -> None:
        """Search `selection` for one query, shape (dimensions,), both ways, and note the recall of the approximate."""
        generation = self._generation
        (found,) = self._propose(generation, query[None], RECALL_AT, selection)
        if generation and found:
            (exact,) = self.search(query[None], RECALL_AT, selection)
            recall = recall_of(found.scores, exact.scores, self.space.metric)
            generation.recall.add(share, recall, self.space.config.recall_floor)

    def rank(self, query: Matrix, selection: Selection) -> Ranking:
        """Return all rows of `selection` ranked for one query, shape (dimensions,), every one compared."""
        return self._to_rows(self._index.rank(query, selection.count, selection.slots()))

    @property
    def _generation(self) -> Generation | None:
        return self._ann.generation if self._ann else None

    @property
    def _serving(self) -> Generation | None:
        """The generation that answers: none while recall is too low."""
        generation = self._generation
        return None if generation is None or generation.recall.degraded else generation

    @property
    def _count(self) -> int:
        return self._extent - len(self._free)

    def _used_slots(self) -> Numbers:
        table = self._slot_of_row
        held: Numbers = table[table != EMPTY].astype(np.int64)
        return held

    def _approximate(self, queries: Matrix, top_k: int, selection: Selection) -> Sequence[Answer]:
        """Answer by the approximate index; exactly, those queries for which it proposes too little."""
        rankings = self._propose(self._generation, queries, top_k, selection)
        unanswered = [number for number, ranking in enumerate(rankings) if ranking is None]
        exact = iter(self.search(queries[unanswered], top_k, selection) if unanswered else ())
        return [
            Answer(next(exact), Mode.EXACT) if ranking is None else Answer(self._to_rows(ranking), Mode.APPROXIMATE)
            for ranking in rankings
        ]

    def _propose(
        self, generation: Generation | None, queries: Matrix, top_k: int, selection: Selection
    ) -> Sequence[Ranking | None]:
        """Return for each query the ranking of what the approximate index proposes and of what it does not know yet."""
        if generation is None or self._ann is None:
            return [None] * len(queries)
        proposals = generation.index.candidates(queries, top_k, selection)
        recent = self._ann.modified_since(generation, selection)
        if recent is None:
            return [self._rank_candidates(*each, top_k, selection) for each in zip(queries, proposals, strict=True)]
        known = [slots[~self._modifications.modified_after(slots, generation.sequence_number)] for slots in proposals]
        others = self._index.search(queries, top_k, recent)
        return [
            self._rank_candidates(query, slots, top_k, selection, other)
            for query, slots, other in zip(queries, known, others, strict=True)
        ]

    def _rank_candidates(
        self, query: Matrix, proposed: Numbers, top_k: int, selection: Selection, other: Ranking = EMPTY_RANKING
    ) -> Ranking | None:
        """Rank `proposed` slots and those of `other`; return None if they are too few to answer from."""
        if not len(proposed) or len(proposed) + len(other.slots) < min(top_k, selection.count):
            return None
        ranking = self._index.rank(query, top_k, np.concatenate([proposed, other.slots]))
        return replace(ranking, compared=len(proposed) + other.compared)

    def _to_rows(self, ranking: Ranking) -> Ranking:
        return replace(ranking, slots=self._row_of_slot[ranking.slots].astype(np.int64))

    def _map(self, rows: Numbers, slots: Numbers) -> None:
        self._row_of_slot = grow(self._row_of_slot, self._extent)
        self._row_of_slot[slots] = rows
        self._slot_of_row = grow(self._slot_of_row, int(rows.max()) + 1)
        self._slot_of_row[rows] = slots

    def _allocate(self, count: int) -> Numbers:
        reused = [self._free.pop() for _ in range(min(count, len(self._free)))]
        fresh = range(self._extent, self._extent + count - len(reused))
        self._extent = fresh.stop
        return np.array([*reused, *fresh], np.int64)
