"""The codes of a segment, in an index of FAISS that is written in place."""

from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from services.common.vectors import Matrix
from services.search.core.scoring import Doubles, chunks
from services.search.core.vector_index import Numbers
from services.search.engines.faiss.filters import FilterCache, RowFilter
from services.search.engines.faiss.quantizer import Quantizer
from services.search.engines.faiss.query_batch import QueryBatch

_faiss: Any = faiss  # its stubs know the C++ signatures only


class CodeTable:
    """Codes of rows 0 to n, of one quantizer. One writer; readers at any time, of rows that are not written meanwhile.

    FAISS holds up to `capacity` rows without moving them. `error` and `longest` bound those of all codes but those of
    `outliers`, rows of which codes tell nothing. Copies for filters are kept while they take `room_bytes` a row.
    """

    def __init__(self, quantizer: Quantizer, capacity: int, room_bytes: float) -> None:
        self.quantizer, self.capacity = quantizer, capacity
        self.error = self.longest = 0.0
        self.outliers: Numbers = np.empty(0, np.int64)
        self._width, self._room_bytes = quantizer.projection.width, room_bytes
        self._index = quantizer.empty_index()
        self._index.codes.resize(capacity * self._width)
        self._index.codes.resize(0)
        self._filters = FilterCache(self._width, room_bytes)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @classmethod
    def encode(cls, quantizer: Quantizer, vectors: Matrix, capacity: int, room_bytes: float) -> Self:
        """Return the codes of `vectors`, one a row."""
        table, rows = cls(quantizer, capacity, room_bytes), np.arange(len(vectors))
        for part in chunks(len(rows), vectors.shape[1]):
            table.write(rows[part], vectors[part])
        return table

    @property
    def memory_bytes(self) -> int:
        """Bytes of the codes and of copies."""
        return len(self) * self._width + self._filters.memory_bytes

    def grow(self, capacity: int) -> "CodeTable":
        """Return the same codes with room for `capacity` rows."""
        table = CodeTable(self.quantizer, capacity, self._room_bytes)
        table.error, table.longest, table.outliers = self.error, self.longest, self.outliers
        table._index.add_sa_codes(self._codes)
        return table

    def write(self, rows: Numbers, vectors: Matrix) -> None:
        """Write the codes of `vectors` into `rows`: ascending, those behind the last one without a gap."""
        encoded = self.quantizer.encode(vectors)
        tight = ~encoded.outliers
        self.error = max(self.error, encoded.errors.max(where=tight, initial=0))
        self.longest = max(self.longest, encoded.lengths.max(where=tight, initial=0))
        if len(self.outliers) or not tight.all():
            self.outliers = np.union1d(np.setdiff1d(self.outliers, rows), rows[encoded.outliers])
        held = int(np.searchsorted(rows, len(self)))
        if held:
            self._codes[rows[:held]] = encoded.codes[:held]
        if held < len(rows):
            self._index.add_sa_codes(encoded.codes[held:])
        self._filters.clear()

    def search(self, batch: QueryBatch, wanted: int, chosen: RowFilter) -> tuple[Numbers, Doubles, Doubles]:
        """Return the `wanted` rows of the highest bounds, these, both (queries, wanted), and what no other exceeds.

        Rows that are no candidates have bounds of minus infinity.
        """
        queries = self.quantizer.encode_queries(batch)
        index, copied, selector = self._index, None, None
        if chosen.bits is not None and (copied := self._filters.copy(chosen, len(self), self._copy)):
            index = copied.index
        elif chosen.bits is not None:
            selector = _faiss.IDSelectorBitmap(chosen.bits)
        elif chosen.limit < len(self):
            selector = _faiss.IDSelectorRange(0, chosen.limit)
        parameters = None if selector is None else _faiss.SearchParameters(sel=selector)
        scores, rows = index.search(queries.numbers, wanted, params=parameters)
        bounds = self.quantizer.bounds(scores, queries, self.error, self.longest)
        rest = np.where(rows[:, -1] < 0, -np.inf, bounds[:, -1])
        if copied:
            rows = np.where(rows < 0, -1, copied.rows[rows].astype(np.int64))
        bounds[(rows < 0) | (rows >= chosen.limit)] = -np.inf  # what was written behind the limit meanwhile
        if len(self.outliers):
            bounds[np.isin(rows, self.outliers)] = -np.inf
        return rows, bounds, rest

    def _copy(self, rows: Numbers) -> Any:
        """Return an index of the codes of `rows`."""
        copy = self.quantizer.empty_index()
        copy.add_sa_codes(self._codes[rows])
        return copy

    @property
    def _codes(self) -> NDArray[np.uint8]:
        """The codes where FAISS holds them."""
        codes: NDArray[np.uint8] = _faiss.rev_swig_ptr(self._index.codes.data(), len(self) * self._width)
        return codes.reshape(-1, self._width)
