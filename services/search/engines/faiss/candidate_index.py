"""What approximate indexes of FAISS have in common: how vectors are laid out for it, and its numbers for our slots.

FAISS numbers vectors as they come, from 0: a place. A table says which slot a place stands for. A place whose slot was
dropped or added again is dead: it stays in FAISS's index until that is built anew, and is passed over in what it finds.

A search asks FAISS for the nearest places of all and takes from them those selected, as many more as the share of
the selected is smaller. If near the query fewer of them are selected than on the whole, it asks again for as many
more as that takes, and gives up where this would cost more than comparing everything. So what it proposes has the
recall of a search without a filter, wherever the filtered vectors lie.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Self, cast

import faiss
import numpy as np
from google.protobuf import json_format

from medley.v1 import index_config_pb2
from services.common import index_config_codec
from services.common.index_config import IndexConfig
from services.common.vectors import Matrix, Metric
from services.search.core.candidate_index import MAX_DEAD_SHARE, MAX_GROWTH, AnnKind
from services.search.core.scoring import lengths_of, prepared
from services.search.core.slot_table import EMPTY, SlotTable, grow
from services.search.core.vector_index import Mask, Numbers, Selection

FILTER_SLACK = 1.5
NEARLY_ALL = 0.99
REACH_AT_LEAST = 1024
REACH_SHARE = 1 / 64
_LARGEST = np.float32(6e4)  # of float16, about


@dataclass(frozen=True, slots=True)
class Layout:
    """How vectors of a space are handed to FAISS: divided by `longest`, so that none of its formats overflows.

    Those with `lifted` further dimensions get in the first of these what makes all of them equally long (Bachrach et
    al., "Speeding Up the Xbox Recommender System…", RecSys 2014): the greatest product then is the least distance.
    """

    metric: Metric
    dimensions: int
    longest: float = 1.0
    lifted: int = 0

    @classmethod
    def of(cls, sample: Matrix, metric: Metric, *, lifted: int = 0) -> Self:
        """Return the layout for vectors like `sample`."""
        longest = 1.0 if metric is Metric.COSINE else float(lengths_of(sample).max(initial=0.0))
        return cls(metric, sample.shape[1], longest or 1.0, lifted)

    @property
    def width(self) -> int:
        """Length of a vector as FAISS gets it."""
        return self.dimensions + self.lifted

    @property
    def faiss_metric(self) -> int:
        """FAISS's metric."""
        return int(faiss.METRIC_L2 if self.metric is Metric.EUCLIDEAN else faiss.METRIC_INNER_PRODUCT)

    def vectors(self, vectors: Matrix) -> Matrix:
        """Return `vectors` as they are added."""
        if self.metric is Metric.COSINE:
            return np.ascontiguousarray(vectors)
        scaled = self._scaled(vectors)
        if not self.lifted:
            return scaled
        rest = np.sqrt(np.maximum(0.0, 1.0 - lengths_of(scaled) ** 2)).astype(np.float32)
        return np.hstack([scaled, rest[:, None], np.zeros((len(scaled), self.lifted - 1), np.float32)])

    def queries(self, queries: Matrix) -> Matrix:
        """Return `queries` as they are searched; under a product their length changes no order."""
        laid = self._scaled(queries) if self.metric is Metric.EUCLIDEAN else prepared(queries, Metric.COSINE)
        return np.ascontiguousarray(np.pad(laid, ((0, 0), (0, self.lifted))) if self.lifted else laid)

    def _scaled(self, vectors: Matrix) -> Matrix:
        scaled: Matrix = np.clip(vectors / np.float64(self.longest), -_LARGEST, _LARGEST).astype(np.float32)
        return scaled


@dataclass(frozen=True, slots=True)
class Ground:
    """What an index was made from: `learnt_from` vectors laid out so; 0 where it learnt nothing from them."""

    kind: AnnKind
    layout: Layout
    learnt_from: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the ground in JSON's values."""
        kind = json_format.MessageToDict(index_config_codec.to_message(IndexConfig(self.kind)))
        layout = asdict(self.layout) | {"metric": self.layout.metric.value}
        return {"kind": kind, "layout": layout, "learnt_from": self.learnt_from}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the ground that `to_json` spelt."""
        message = json_format.ParseDict(values["kind"], index_config_pb2.IndexConfig())
        kind = index_config_codec.from_message(message).kind
        layout = Layout(**values["layout"] | {"metric": Metric(values["layout"]["metric"])})
        return cls(cast(AnnKind, kind), layout, values["learnt_from"])


@dataclass(frozen=True, slots=True)
class Threads:
    """OpenMP threads: of each search, and of whoever adds vectors."""

    search: int = 1
    build: int = 1


@dataclass(frozen=True, slots=True)
class _Aim:
    """The selected slots that a search needs: `wanted` of them, or at least `min_candidates`."""

    min_candidates: int
    wanted: int
    selection: Selection


class FaissCandidateIndex(ABC):
    """`CandidateIndex` over one of FAISS's indexes."""

    engine: str

    def __init__(self, index: Any, slots: SlotTable, ground: Ground, threads: Threads) -> None:
        self._index = index
        self._slots = slots
        self._ground = ground
        self._threads = threads

    @property
    def size(self) -> int:
        return len(self._slots)

    @property
    def memory_bytes(self) -> int:
        return self._index_bytes() + self._slots.nbytes

    def candidates(self, queries: Matrix, top_k: int, selection: Selection) -> Sequence[Numbers]:
        wanted = self._wanted(top_k)
        share = min(1.0, selection.count / max(1, self.size))
        reach = wanted if share > NEARLY_ALL else int(wanted / max(share, 1e-9) * FILTER_SLACK) + 1
        if not self.size or reach > self._furthest:
            return [np.empty(0, np.int64)] * len(queries)
        laid = self._ground.layout.queries(queries)
        aim = _Aim((wanted + top_k) // 2, wanted, selection)
        return [
            found[:wanted] if len(found) >= aim.min_candidates else self._further(query, len(found), reach, aim)
            for query, found in zip(laid, self._found(laid, reach, aim), strict=True)
        ]

    def extend(self, current: Mask, added: int) -> "FaissAnnBuilder | None":
        known = np.append(current, np.False_)  # the last is for slots beyond the mask, and for EMPTY
        slots = np.where(known[np.minimum(self._slots, len(current))], self._slots, EMPTY).astype(np.int32)
        alive = int(np.count_nonzero(slots != EMPTY))
        learnt_from = self._ground.learnt_from
        if alive < (1 - MAX_DEAD_SHARE) * self.size or (learnt_from and alive + added > MAX_GROWTH * learnt_from):
            return None
        return FaissAnnBuilder(faiss.clone_index(self._index), self._ground, type(self), self._threads, slots)

    def save(self, file: BinaryIO) -> None:
        header = {"engine": self.engine, "slots": len(self._slots), "ground": self._ground.to_json()}
        file.write(json.dumps(header).encode() + b"\n")
        file.write(self._slots.astype("<i4").tobytes())
        library: Any = faiss  # its stub does not know the writer
        library.write_index(self._index, library.PyCallbackIOWriter(file.write))

    @abstractmethod
    def with_search_params(self, kind: AnnKind) -> Self | None:
        """See `CandidateIndex`."""

    @abstractmethod
    def _wanted(self, top_k: int) -> int:
        """Return how many of the index's nearest have the `top_k` nearest among them."""

    @abstractmethod
    def _parameters(self, reach: int, effort: float) -> Any:
        """Return FAISS's parameters to find the `reach` nearest, `effort` times as many as without a filter."""

    @abstractmethod
    def _index_bytes(self) -> int:
        """Return the bytes of FAISS's index."""

    def _over(self, index: Any, slots: SlotTable, ground: Ground) -> Self:
        return type(self)(index, slots, ground, self._threads)

    @property
    def _furthest(self) -> int:
        return max(REACH_AT_LEAST, int(self.size * REACH_SHARE))

    def _further(self, query: Matrix, found: int, reach: int, aim: _Aim) -> Numbers:
        """Look as much further as `found` among `reach` suggests; return none if that is too far or not enough."""
        if reach < self.size:
            reach = min(self.size, int(aim.wanted * FILTER_SLACK * reach / (found + 1)) + 1)
        if reach > self._furthest:
            return np.empty(0, np.int64)
        (slots,) = self._found(query[None], reach, aim)
        return slots[: aim.wanted] if len(slots) >= aim.min_candidates or reach == self.size else slots[:0]

    def _found(self, laid: Matrix, reach: int, aim: _Aim) -> Sequence[Numbers]:
        """Return the selected slots among the `reach` nearest places of each query, nearest first."""
        faiss.omp_set_num_threads(self._threads.search)  # of this thread only
        _, places = self._index.search(laid, reach, params=self._parameters(reach, reach / aim.wanted))
        slots = np.where(places >= 0, self._slots[places], EMPTY).astype(np.int64)
        return [row[inside] for row, inside in zip(slots, aim.selection.has(slots), strict=True)]


class FaissAnnBuilder:
    """`AnnBuilder` over one of FAISS's indexes, trained, which `over` makes a `CandidateIndex`."""

    def __init__(
        self,
        index: Any,
        ground: Ground,
        over: Callable[[Any, SlotTable, Ground, Threads], FaissCandidateIndex],
        threads: Threads,
        slots: SlotTable | None = None,
    ) -> None:
        self._index = index
        self._ground = ground
        self._over = over
        self._threads = threads
        self._slots: SlotTable = np.empty(0, np.int32) if slots is None else slots
        self._size = len(self._slots)
        self._place_of_slot: SlotTable = np.empty(0, np.int32)
        held = np.flatnonzero(self._slots != EMPTY)
        self._move(self._slots[held].astype(np.int64), held)

    def add(self, slots: Numbers, vectors: Matrix) -> None:
        if not len(slots):
            return
        faiss.omp_set_num_threads(self._threads.build)  # of this thread only
        self._index.add(self._ground.layout.vectors(vectors))
        places = np.arange(self._size, self._size + len(slots))
        self._slots = grow(self._slots, self._size + len(slots))
        self._slots[places] = slots
        self._size += len(slots)
        before = self._move(slots, places)
        self._slots[before[before != EMPTY]] = EMPTY

    def finish(self) -> FaissCandidateIndex:
        return self._over(self._index, self._slots[: self._size].copy(), self._ground, self._threads)

    def _move(self, slots: Numbers, places: Numbers) -> SlotTable:
        """Let `slots` lie in `places`; return where they lay before."""
        self._place_of_slot = grow(self._place_of_slot, int(slots.max(initial=-1)) + 1)
        before = self._place_of_slot[slots]
        self._place_of_slot[slots] = places
        return before
