"""The rows of one space in Milvus: written in rounds, read as of a round."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from services.common.vectors import Matrix
from services.search.core.change_feed import Space
from services.search.engines.milvus.client import MAX_RESULTS, REQUEST_BYTES, Milvus, Row, batches, page_rows
from services.search.engines.milvus.metadata_encoding import TOKEN_BYTES
from services.search.engines.milvus.schema import (
    FIELDS,
    FOREVER,
    RESULT_FIELDS,
    indexes_of,
    row_bytes,
    schema_of,
    written_bytes,
)

_IDS_AT_A_TIME = 1024
_TOKEN_SENT_BYTES = TOKEN_BYTES + 8


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows read for an answer: keys, ids, the spaces of each item joined by commas, vectors as they are held."""

    keys: Sequence[str]
    ids: Sequence[str]
    spaces: Sequence[str]
    vectors: Matrix

    @classmethod
    def of(cls, rows: Sequence[Row], dimensions: int) -> "Rows":
        """Return what Milvus answered."""
        vectors = np.array([row["vector"] for row in rows], np.float32).reshape(-1, dimensions)
        return cls([row["row"] for row in rows], [row["id"] for row in rows], [row["spaces"] for row in rows], vectors)


def visible(round_number: int, condition: str = "") -> str:
    """Return the expression of rows that are part of a round and satisfy `condition`."""
    alive = f"born <= {round_number} and died > {round_number}"
    return f"{alive} and ({condition})" if condition else alive


class MilvusSpace:
    """One Milvus collection: the rows of a space."""

    def __init__(self, milvus: Milvus, name: str, space: Space) -> None:
        self._milvus = milvus
        self.name = name
        self.space = space
        self._read_bytes = row_bytes(space.dimensions)
        self._written_bytes = written_bytes(space.dimensions)

    def create(self) -> None:
        """Make it, without an index: it is written to before it is read."""
        self._milvus.create(self.name, schema_of(self.space))

    def index(self, vectors: int) -> None:
        """Let it be searched, by an index for about `vectors`."""
        options = self._milvus.options
        self._milvus.index(self.name, indexes_of(self.space, vectors, gpu=options.gpu, lite=self._milvus.lite))

    def write(self, rows: Sequence[Row]) -> None:
        """Write `rows` over those of the same keys."""
        for some in _by_size(rows, self._read_bytes):
            self._milvus.upsert(self.name, some)

    def end(self, items: Sequence[str], round_number: int) -> None:
        """Let `items`, by hash, no more be part of `round_number`, which nobody sees yet."""
        for some in batches(items, TOKEN_BYTES * 8):
            keys = [key_of(item, round_number) for item in some]
            self._milvus.delete(self.name, _is_in("row", keys))

    def retire(self, items: Sequence[str], round_number: int) -> None:
        """Let the rows that hold `items`, by hash, in the rounds before be the last ones to do so."""
        size = min(_IDS_AT_A_TIME, page_rows(self._written_bytes))
        for begin in range(0, len(items), size):
            living = f"died == {FOREVER} and born < {round_number} and {_is_in('item', items[begin : begin + size])}"
            self._rewrite(self._milvus.query(self.name, living, FIELDS, MAX_RESULTS), round_number)

    def rollback(self, round_number: int) -> None:
        """Undo what was written after `round_number`."""
        self._milvus.delete(self.name, f"born > {round_number}")
        ended = f"died > {round_number} and died < {FOREVER}"
        for page in self._milvus.pages(self.name, ended, FIELDS, self._written_bytes):
            self._rewrite(page, FOREVER)

    def vacuum(self, round_number: int) -> None:
        """Remove the rows that no round from `round_number` on shows."""
        self._milvus.delete(self.name, f"died <= {round_number}")

    def count(self, expression: str) -> int:
        """Return for how many rows `expression` holds."""
        return self._milvus.count(self.name, expression)

    def copy_to(self, other: "MilvusSpace", round_number: int) -> None:
        """Write everything that `round_number` shows to `other`."""
        for page in self._milvus.pages(self.name, visible(round_number), FIELDS, self._written_bytes):
            other.write([_to_row(row) for row in page])

    def ids(self, round_number: int) -> Iterator[str]:
        """Yield the ids of all items that `round_number` shows."""
        for page in self._milvus.pages(self.name, visible(round_number), ["id"], self._read_bytes):
            yield from (row["id"] for row in page)

    def scan(self, expression: str) -> Iterator[Rows]:
        """Yield all rows for which `expression` holds, in parts."""
        for page in self._milvus.pages(self.name, expression, RESULT_FIELDS, self._read_bytes):
            yield Rows.of(page, self.space.dimensions)

    def among(self, items: Sequence[str], expression: str) -> Iterator[Rows]:
        """Yield the rows of `items`, by hash, for which `expression` holds, in parts."""
        size = min(_IDS_AT_A_TIME, page_rows(self._read_bytes))
        for begin in range(0, len(items), size):
            selected = f"({expression}) and {_is_in('item', items[begin : begin + size])}"
            yield Rows.of(self._milvus.query(self.name, selected, RESULT_FIELDS, MAX_RESULTS), self.space.dimensions)

    def nearest(self, queries: Matrix, limit: int, expression: str, params: Row) -> list[Rows]:
        """Return for each of `queries` the `limit` rows that Milvus finds nearest, nearest first."""
        size = page_rows(limit * self._read_bytes)
        parts = (queries[begin : begin + size] for begin in range(0, len(queries), size))
        return [rows for batch in parts for rows in self._nearest(batch, limit, expression, params)]

    def _nearest(self, queries: Matrix, limit: int, expression: str, params: Row) -> list[Rows]:
        """Return what `nearest` does; too many vectors for one answer are read by key, in parts."""
        small = page_rows(self._read_bytes) >= limit
        hits = self._milvus.search(
            self.name, queries, limit, expression=expression, fields=RESULT_FIELDS if small else (), params=params
        )
        if small:
            return [Rows.of(each, self.space.dimensions) for each in hits]
        return [Rows.of(self._read_again([hit["row"] for hit in each]), self.space.dimensions) for each in hits]

    def _read_again(self, keys: Sequence[str]) -> list[Row]:
        read = {
            row["row"]: row
            for some in batches(keys, self._read_bytes)
            for row in self._milvus.query(self.name, _is_in("row", some), RESULT_FIELDS, MAX_RESULTS)
        }
        return [read[key] for key in keys if key in read]

    def _rewrite(self, rows: Sequence[Row], died: int) -> None:
        if rows:
            self.write([{**_to_row(row), "died": died} for row in rows])


def key_of(item: str, round_number: int) -> str:
    """Return the key of the row that holds `item`, by hash, from `round_number` on."""
    return f"{item}-{round_number:x}"


def _to_row(row: Row) -> Row:
    """Return `row` as it is written, of what Milvus answered."""
    return {**{name: row[name] for name in FIELDS}, "vector": np.array(row["vector"], np.float32)}


def _by_size(rows: Sequence[Row], row_bytes: int) -> Iterator[Sequence[Row]]:
    """Yield `rows` in parts that make a request; each takes `row_bytes`, and its tokens and bounds besides."""
    begin = size = 0
    for end, row in enumerate(rows):
        size += row_bytes + len(row["tokens"]) * _TOKEN_SENT_BYTES + sum(map(len, row["bounds"].values()))
        if size > REQUEST_BYTES and end > begin:
            yield rows[begin:end]
            begin, size = end, 0
    if begin < len(rows):
        yield rows[begin:]


def _is_in(field: str, values: Iterable[str]) -> str:
    return f"{field} in {json.dumps(list(values))}"
