"""The change feed: what changed in a collection, and goes on changing."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from services.common.errors import ServiceUnavailableError
from services.common.versions import Version
from services.store.core.collections import Collections
from services.store.core.rows import Space
from services.store.core.table import ChangedRows, Table, VectorColumn

BEGINNING = 0
MAX_PORTION_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Change:
    """A part of what changed; `version` is set on the last part: with it applied, the reader holds that version.

    `spaces`, where not empty, are all of them as of that version.
    """

    reset: bool = False
    rows: ChangedRows | None = None
    version: Version | None = None
    spaces: Sequence[Space] = ()


class Feed:
    """Follows collections."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections
        self._stopping = asyncio.Event()

    def end(self) -> None:
        """End every watch: who watches comes again, to whoever answers then."""
        self._stopping.set()

    async def watch(self, collection: str, after: Version | None) -> AsyncGenerator[Change, None]:
        """Yield what changed since `after`, None for a reader that holds nothing, then each commit's changes.

        Something comes at once, if only the version there is. The first version comes with the spaces, and so does each
        that brings others than the one before. Where the changes since `after` are no longer known, or
        it is of another collection, the first part says `reset` and all rows follow.

        Raises:
            CollectionNotFoundError: no such collection, or no more.
            ServiceUnavailableError: the service is stopping.
        """
        table = await self._collections.table(collection)
        uid = table.definition.uid
        cursor = after.number if after and after.uid == uid else BEGINNING
        reset = after is not None and after.uid != uid
        told: Sequence[Space] = ()
        while True:
            changes = await table.changes(cursor)
            reset = reset or not changes.complete
            async with aclosing(_portions(changes.batches)) as portions:
                async for rows in portions:
                    yield Change(reset, rows)
                    reset = False
            spaces = changes.definition.spaces
            yield Change(reset, None, Version(uid, changes.version), spaces if spaces != told else ())
            reset, cursor, told = False, changes.version, spaces
            await self._newer_than(table, cursor)

    async def _newer_than(self, table: Table, version: int) -> None:
        commit = asyncio.create_task(table.newer_than(version))
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((commit, stop), return_when=asyncio.FIRST_COMPLETED)
            if self._stopping.is_set():
                raise ServiceUnavailableError("store", "is stopping")
            commit.result()
        finally:
            commit.cancel()
            stop.cancel()


async def _portions(batches: AsyncIterator[ChangedRows]) -> AsyncGenerator[ChangedRows, None]:
    async for batch in batches:
        for portion in portions(batch, MAX_PORTION_BYTES):
            yield portion


def portions(rows: ChangedRows, max_bytes: int) -> Iterator[ChangedRows]:
    """Cut `rows` so that none has over `max_bytes`, or it has one row."""
    row_bytes = sum(4 * column.values.shape[1] for column in rows.vectors.values())
    start = size = 0
    for end, (row_id, metadata) in enumerate(zip(rows.ids, rows.metadata_json, strict=True)):
        added = row_bytes + len(row_id) + len(metadata)
        if size + added > max_bytes and end > start:
            yield _slice(rows, start, end)
            start, size = end, 0
        size += added
    last = _slice(rows, start, len(rows.ids))
    yield replace(last, deleted_ids=rows.deleted_ids)


def _slice(rows: ChangedRows, start: int, end: int) -> ChangedRows:
    vectors = {
        name: VectorColumn(column.values[start:end], column.present[start:end]) for name, column in rows.vectors.items()
    }
    return ChangedRows(rows.ids[start:end], rows.metadata_json[start:end], vectors, ())
