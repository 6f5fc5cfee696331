"""The change feed of a collection: what has changed since a version, then each new commit."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from services.common.errors import ServiceUnavailableError
from services.common.versions import Version
from services.store.core.collections import Collections
from services.store.core.rows import Space
from services.store.core.table import ChangedRows, Table, VectorColumn

BEFORE_FIRST_COMMIT = 0
MAX_CHANGE_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Change:
    """A part of a change. `version` is set on the last part: once that is applied, the reader holds that version.

    `reset` means that the reader discards all it has. `spaces`, unless empty, are all spaces as of `version`.
    """

    reset: bool = False
    rows: ChangedRows | None = None
    version: Version | None = None
    spaces: Sequence[Space] = ()


class ChangeFeed:
    """Streams the changes of collections."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections
        self._stopping = asyncio.Event()

    def close(self) -> None:
        """End every stream with an error that makes its reader reconnect."""
        self._stopping.set()

    async def watch(self, collection: str, after: Version | None) -> AsyncGenerator[Change, None]:
        """Yield the changes since `after`, or all rows if it is None, then those of each new commit.

        The first change is sent even if it is empty. The first version comes with the spaces, and so does each version
        whose spaces differ from the one before. If the changes since `after` are no longer known, or it is a version of
        another collection, the first part has `reset` set and all rows follow.

        Raises:
            CollectionNotFoundError: there is no such collection, or it was dropped.
            ServiceUnavailableError: the service is stopping.
        """
        table = await self._collections.table(collection)
        uid = table.schema.uid
        cursor = after.number if after and after.uid == uid else BEFORE_FIRST_COMMIT
        reset = after is not None and after.uid != uid
        sent_spaces: Sequence[Space] = ()
        while True:
            changes = await table.changes(cursor)
            reset = reset or not changes.complete
            async with aclosing(_split_batches(changes.batches)) as batches:
                async for rows in batches:
                    yield Change(reset, rows)
                    reset = False
            spaces = changes.schema.spaces
            yield Change(reset, None, Version(uid, changes.version), spaces if spaces != sent_spaces else ())
            reset, cursor, sent_spaces = False, changes.version, spaces
            await self._wait_for_commit(table, cursor)

    async def _wait_for_commit(self, table: Table, version: int) -> None:
        commit = asyncio.create_task(table.wait_for_commit(version))
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((commit, stop), return_when=asyncio.FIRST_COMPLETED)
            if self._stopping.is_set():
                raise ServiceUnavailableError("store", "is stopping")
            commit.result()
        finally:
            commit.cancel()
            stop.cancel()


async def _split_batches(batches: AsyncIterator[ChangedRows]) -> AsyncGenerator[ChangedRows, None]:
    async for batch in batches:
        for part in split_changes(batch, MAX_CHANGE_BYTES):
            yield part


def split_changes(rows: ChangedRows, max_bytes: int) -> Iterator[ChangedRows]:
    """Split `rows` into parts of at most `max_bytes`, or of one row; the last part has all deletions."""
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
