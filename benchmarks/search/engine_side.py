"""One side of `benchmarks.search.engine`: an index in a process of its own, which measures what it is told.

It is run by its path, so that the packages of another checkout can be searched with the same cases.
"""

import hashlib
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from services.common.vectors import Matrix, Metric
from services.search.core.vector_index import Ranking, Selection

RAW = "raw"
TOP_K = 10
WRITTEN_AT_ONCE = 8192
STRIDE = 7919  # a prime: rows that are written lie anywhere

_faiss: Any = faiss  # its stubs know the C++ signatures only


class RawFlat:
    """`IndexFlatIP`, asked as an index of ours is."""

    def __init__(self, dimensions: int, metric: Metric) -> None:
        self._index = _faiss.IndexFlatIP(dimensions)
        _faiss.omp_set_num_threads(1)

    def write(self, slots: NDArray[np.int64], vectors: Matrix) -> None:
        """Append `vectors`, or overwrite those of `slots`."""
        if slots[0] == self._index.ntotal:
            self._index.add(vectors)
        else:
            held = _faiss.rev_swig_ptr(self._index.get_xb(), self._index.ntotal * self._index.d)
            held.reshape(-1, self._index.d)[slots] = vectors

    def search(self, queries: Matrix, top_k: int, selection: Selection) -> list[Ranking]:
        """Search with FAISS's fastest selector."""
        chosen = None
        if selection.listed is not None:
            chosen = _faiss.SearchParameters(sel=_faiss.IDSelectorArray(selection.listed))
        elif selection.bits is not None:
            chosen = _faiss.SearchParameters(sel=_faiss.IDSelectorBitmap(selection.bits))
        scores, slots = self._index.search(queries, top_k, params=chosen)
        return [Ranking(*each) for each in zip(slots, scores, strict=True)]


class Side:
    """An index over the vectors in a folder, and the works that are timed."""

    def __init__(self, folder: Path, engine: str) -> None:
        self._queries: Matrix = np.load(folder / "queries.npy")
        self._masks = dict(np.load(folder / "masks.npz"))
        module, _, name = engine.partition(":")
        make = RawFlat if engine == RAW else getattr(importlib.import_module(module), name)
        vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        self._count, self._dimensions = vectors.shape
        self._index = make(self._dimensions, Metric.COSINE)
        for begin in range(0, self._count, WRITTEN_AT_ONCE):
            part = np.array(vectors[begin : begin + WRITTEN_AT_ONCE])
            self._index.write(np.arange(begin, begin + len(part)), part)
        getattr(self._index, "settle", int)()
        self._selections = {name: self._selection(mask) for name, mask in self._masks.items()}
        self._selections["all"] = Selection.of(np.arange(self._count), self._count)

    def works(self, case: str, begin: int, end: int) -> Iterator[Callable[[], Any]]:
        """Yield what to time: `case` is a kind of work, a selection and a number of queries, as in "search all 1"."""
        kind, name, size = case.split()
        for number in range(begin, end):
            places = np.arange(number * int(size), (number + 1) * int(size)) % len(self._queries)
            queries = self._unlike(number, int(size)) if kind == "unlike" else self._queries[places]
            if kind == "write":
                yield partial(self._index.write, np.array([number * STRIDE % self._count]), queries)
            else:
                selection = self._once(name, number) if kind == "once" else self._selections[name]
                yield partial(self._index.search, queries, TOP_K, selection)

    def answer(self, case: str, begin: int, end: int) -> dict[str, Any]:
        """Return the seconds of processor's time of each work, and a hash of all answers."""
        taken, answers = [], hashlib.sha256()
        for work in self.works(case, begin, end):
            began = time.thread_time()
            found = work()
            taken.append(time.thread_time() - began)
            for ranking in found or ():
                answers.update(ranking.slots[np.lexsort((ranking.slots, -ranking.scores))].astype("<i8").tobytes())
        return {"seconds": taken, "answers": answers.hexdigest()}

    def _once(self, name: str, number: int) -> Selection:
        """Return a filter like that of `name`, but for an item, which is asked for the first time."""
        mask = self._masks[name].copy()
        mask[number % self._count] ^= True
        return self._selection(mask)

    def _unlike(self, number: int, size: int) -> Matrix:
        """Return queries that have nothing in common with the vectors."""
        queries = np.random.default_rng(number).standard_normal((size, self._dimensions), np.float32)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        return queries

    def _selection(self, mask: NDArray[np.bool_]) -> Selection:
        return Selection.of(np.flatnonzero(mask), self._count)


def main() -> None:
    """Answer each line of the standard input: a case and the numbers of its works."""
    side = Side(Path(sys.argv[1]), sys.argv[2])
    for line in sys.stdin:
        print(json.dumps(side.answer(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
