"""Deep Lake in this process, with its query language: exact, over files on disk."""

from importlib.metadata import version
from pathlib import Path

import deeplake
import numpy as np

from benchmarks.peers.peer import ROWS_PER_WRITE, TOP_K
from benchmarks.search.conditions import Condition
from benchmarks.search.corpus import Corpus, Matrix


class DeepLake:
    """`Peer`."""

    modes = ("exact",)
    version = f"deeplake {version('deeplake')}"

    def __init__(self, folder: Path, mode: str) -> None:
        self._items = deeplake.create(str(folder / "items"))

    def load(self, corpus: Corpus) -> None:
        self._items.add_column("id", deeplake.types.Int64())
        self._items.add_column("vector", deeplake.types.Array("float32", shape=[corpus.vectors.shape[1]]))
        for name in corpus.fields:
            self._items.add_column(name, deeplake.types.Text(deeplake.types.Inverted))
        for begin in range(0, len(corpus.vectors), ROWS_PER_WRITE):
            rows = slice(begin, min(begin + ROWS_PER_WRITE, len(corpus.vectors)))
            columns = {name: values[rows].tolist() for name, values in corpus.fields.items()}
            numbers = np.arange(rows.start, rows.stop)
            self._items.append({"id": numbers, "vector": np.array(corpus.vectors[rows]), **columns})
        self._items.commit()

    def search(self, query: Matrix, condition: Condition | None) -> list[int]:
        where = f"WHERE {condition.field} == '{condition.value}'" if condition else ""
        vector = ",".join(map(str, query.tolist()))
        found = self._items.query(
            f"SELECT id {where} ORDER BY COSINE_SIMILARITY(vector, ARRAY[{vector}]) DESC LIMIT {TOP_K}"
        )
        return [int(row) for row in found["id"][:]]

    def stop(self) -> None:
        pass
