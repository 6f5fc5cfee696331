"""Reads of one commit of a Lance table."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from services.store.adapters.lance.arrow import columns_of, from_arrow, from_batch
from services.store.adapters.lance.dataset import Dataset
from services.store.core.rows import CollectionSchema, Row, RowFields
from services.store.core.table import BATCH_ROWS, RowLookup

T = TypeVar("T")
Run: TypeAlias = Callable[..., Awaitable[Any]]

MAX_IDS_PER_QUERY = 10_000


class LanceSnapshot:
    """`Snapshot` over an immutable handle; `run` runs blocking work in a thread and translates its errors."""

    def __init__(self, schema: CollectionSchema, dataset: Dataset, run: Run) -> None:
        self._schema = schema
        self._dataset = dataset
        self._run = run

    @property
    def schema(self) -> CollectionSchema:
        return self._schema

    @property
    def version(self) -> int:
        version: int = self._dataset.version
        return version

    async def get(self, ids: Collection[str], fields: RowFields) -> RowLookup:
        columns = columns_of(self._schema, fields)
        rows = await self._run(lambda: from_arrow(self._schema, _look_up(self._dataset, list(ids), columns)))
        return RowLookup(self.version, {row.id: row for row in rows})

    async def page(self, after: str | None, limit: int, fields: RowFields) -> list[Row]:
        columns = columns_of(self._schema, fields)
        rows: list[Row] = await self._run(
            lambda: from_arrow(self._schema, _read_page(self._dataset, after, limit, columns))
        )
        return rows

    async def scan(self, fields: RowFields) -> AsyncGenerator[list[Row], None]:
        columns = columns_of(self._schema, fields)
        scanner = self._dataset.scanner(columns=columns, filter="NOT deleted", batch_size=BATCH_ROWS)
        async for rows in read_batches(self._run, self._schema, scanner, from_batch):
            yield rows

    async def count(self) -> int:
        count: int = await self._run(self._dataset.count_rows, "NOT deleted")
        return count


async def read_batches(
    run: Run, schema: CollectionSchema, scanner: Any, decode: Callable[[CollectionSchema, pa.RecordBatch], T]
) -> AsyncGenerator[T, None]:
    """Yield the scanner's batches, each read and decoded in a thread."""
    batches = await run(lambda: (decode(schema, batch) for batch in scanner.to_batches()))
    while (batch := await run(next, batches, None)) is not None:
        yield batch


def _look_up(dataset: Dataset, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """Return the rows of `ids`, in any order.

    Rows marked deleted are removed here: as part of the filter, Lance takes half as long again.
    """
    chunks = [ids[start : start + MAX_IDS_PER_QUERY] for start in range(0, len(ids), MAX_IDS_PER_QUERY)] or [[]]
    found = pa.concat_tables(
        dataset.to_table(columns=[*columns, "deleted"], filter=f"id IN ({', '.join(map(_quote, chunk)) or 'NULL'})")
        for chunk in chunks
    )
    return found.filter(pc.invert(found.column("deleted"))).drop_columns("deleted")


def _read_page(dataset: Dataset, after: str | None, limit: int, columns: Sequence[str]) -> pa.Table:
    """Return the first `limit` rows with ids over `after`, by id. Only ids are sorted: other columns are read after."""
    above = "" if after is None else f" AND id > {_quote(after)}"
    ids = dataset.scanner(columns=["id"], filter=f"NOT deleted{above}", order_by=["id"], limit=limit).to_table()
    return _look_up(dataset, ids.column("id").to_pylist(), columns).sort_by("id")


def _quote(text: str) -> str:
    """Return `text` as a literal of Lance's SQL, which has no escape but the doubled quote."""
    return "'" + text.replace("'", "''") + "'"
