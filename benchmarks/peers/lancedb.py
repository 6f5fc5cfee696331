"""LanceDB in this process, exact, over Lance files on disk; every metadata field has a bitmap index."""

from importlib.metadata import version
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa

from benchmarks.peers.peer import TOP_K
from benchmarks.search.conditions import Condition
from benchmarks.search.corpus import Corpus, Matrix


class LanceDb:
    """`Peer`."""

    modes = ("exact",)
    version = f"lancedb {version('lancedb')}"

    def __init__(self, folder: Path, mode: str) -> None:
        self._database = lancedb.connect(str(folder))

    def load(self, corpus: Corpus) -> None:
        count, dimensions = corpus.vectors.shape
        vectors = pa.FixedSizeListArray.from_arrays(np.ravel(corpus.vectors), dimensions)
        columns = {name: pa.array(values) for name, values in corpus.fields.items()}
        self._table = self._database.create_table("items", pa.table({"id": range(count), "vector": vectors, **columns}))
        for name in corpus.fields:
            self._table.create_scalar_index(name, index_type="BITMAP")

    def search(self, query: Matrix, condition: Condition | None) -> list[int]:
        asked = self._table.search(query).distance_type("cosine").limit(TOP_K).select(["id", "_distance"])
        if condition:
            asked = asked.where(f"`{condition.field}` = '{condition.value}'", prefilter=True)
        found: list[int] = asked.to_arrow()["id"].to_pylist()
        return found

    def stop(self) -> None:
        pass
