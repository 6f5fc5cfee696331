"""Reads of items."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from services.common.errors import IdError, ItemNotFoundError, MessageTooLargeError, ServiceError
from services.common.filters import Filter
from services.common.names import validate_item_id
from services.store.core.media_store import MediaStore
from services.store.core.mutations import satisfies
from services.store.core.rows import Row, RowField, RowFields
from services.store.core.table import Snapshot
from services.store.core.tags import Tags
from services.store.core.validation import validate_batch_size

ROW_BATCH = 128  # rows read at a time with all their fields
FIRST_SCAN_BATCH = 1000  # rows read at a time to test a filter, doubled up to the largest
LARGEST_SCAN_BATCH = 16_000


@dataclass(frozen=True, slots=True)
class FieldMask:
    """The fields to read of each row, and whether to read the bytes of its media."""

    fields: RowFields
    media_bytes: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A row with the fields of `mask`; `data` are its media's bytes, None if not in the mask or too large to inline."""

    row: Row
    mask: FieldMask
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some items, by id; `last_id` is set if more follow."""

    items: list[Item] = field(default_factory=list)
    last_id: str | None = None


class Reader:
    """Reads items. No response has more than about `max_response_bytes`."""

    def __init__(
        self,
        tags: Tags,
        media: MediaStore,
        *,
        max_inline_bytes: int,
        max_response_bytes: int,
    ) -> None:
        self._tags = tags
        self._media = media
        self._max_inline_bytes = max_inline_bytes
        self._max_response_bytes = max_response_bytes

    async def get(
        self, collection: str, ids: Sequence[str], mask: FieldMask, as_of: str = ""
    ) -> list[Item | ServiceError]:
        """Return for each of `ids`, in order, its item or error; `as_of` is a version token or tag, "" for the newest.

        Raises:
            VersionExpiredError, VersionUnknownError, TagNotFoundError: no such version or tag is kept.
            CollectionNotFoundError: there is no such collection.
            ArgumentError: there are no ids, or too many.
            MessageTooLargeError: the items are too large for one response.
        """
        validate_batch_size("ids", len(ids))
        table = await self._tags.snapshot(collection, as_of)
        errors: dict[str, Item | ServiceError] = {row_id: error for row_id in ids if (error := _id_error(row_id))}
        rows = (await table.get({row_id for row_id in ids if row_id not in errors}, mask.fields)).rows
        size = sum(self._size(rows[row_id], mask) for row_id in ids if row_id in rows)
        if size > self._max_response_bytes:
            problem = (
                f"the response has {size} bytes, {self._max_response_bytes} at most: request fewer items or fields"
            )
            raise MessageTooLargeError(problem, size=str(size), limit=str(self._max_response_bytes))
        items = await self._items(rows.values(), mask)
        outcomes = errors | dict(zip(rows, items, strict=True))
        return [outcomes.get(row_id) or ItemNotFoundError(row_id) for row_id in ids]

    async def page(
        self,
        collection: str,
        condition: Filter | None,
        *,
        after: str | None,
        size: int,
        mask: FieldMask,
        as_of: str = "",
    ) -> Page:
        """Return at most `size` items with ids greater than `after` that satisfy `condition`, by id.

        A page is shorter if its items would be too large for one response.
        """
        table = await self._tags.snapshot(collection, as_of)
        items: list[Item] = []
        total = 0
        async with aclosing(_scan_by_id(table, condition, after, size, mask.fields)) as rows:
            async for row in rows:
                total += self._size(row, mask)
                if items and (len(items) == size or total > self._max_response_bytes):
                    return Page(items, items[-1].row.id)
                items.append(await self._item(row, mask))
        return Page(items)

    async def count(self, collection: str, condition: Filter | None, as_of: str = "") -> int:
        """Return how many items satisfy `condition`."""
        table = await self._tags.snapshot(collection, as_of)
        if condition is None:
            return await table.count()
        counts = [
            sum(satisfies(row, condition) for row in rows) async for rows in table.scan(frozenset({RowField.METADATA}))
        ]
        return sum(counts)

    async def _items(self, rows: Collection[Row], mask: FieldMask) -> Sequence[Item | ServiceError]:
        if not mask.media_bytes:
            return [Item(row, mask) for row in rows]
        return await asyncio.gather(*(self._item_or_error(row, mask) for row in rows))

    async def _item_or_error(self, row: Row, mask: FieldMask) -> Item | ServiceError:
        try:
            return await self._item(row, mask)
        except ServiceError as error:
            return error

    async def _item(self, row: Row, mask: FieldMask) -> Item:
        if not mask.media_bytes or row.media is None or row.media.size_bytes > self._max_inline_bytes:
            return Item(row, mask)
        return Item(row, mask, await self._media.read(row.media.sha256, 0, row.media.size_bytes))

    def _size(self, row: Row, mask: FieldMask) -> int:
        size = len(row.metadata_json.encode()) + len((row.text or "").encode())
        size += sum(vector.nbytes for vector in row.vectors.values())
        if mask.media_bytes and row.media is not None and row.media.size_bytes <= self._max_inline_bytes:
            size += row.media.size_bytes
        return size


def _id_error(row_id: str) -> IdError | None:
    try:
        validate_item_id(row_id)
    except IdError as error:
        return error
    return None


async def _scan_by_id(
    table: Snapshot, condition: Filter | None, after: str | None, size: int, fields: RowFields
) -> AsyncGenerator[Row]:
    """Yield the rows with ids greater than `after` that satisfy `condition`, by id."""
    if condition is None:
        async for rows in _pages(table, after, fields, first=min(size + 1, ROW_BATCH), largest=ROW_BATCH):
            for row in rows:
                yield row
        return
    async for rows in _pages(
        table, after, frozenset({RowField.METADATA}), first=FIRST_SCAN_BATCH, largest=LARGEST_SCAN_BATCH
    ):
        ids = [row.id for row in rows if satisfies(row, condition)]
        for start in range(0, len(ids), ROW_BATCH):
            batch = ids[start : start + ROW_BATCH]
            found = (await table.get(batch, fields | {RowField.METADATA})).rows
            for row_id in batch:
                if row_id in found and satisfies(found[row_id], condition):
                    yield found[row_id]


async def _pages(
    table: Snapshot, after: str | None, fields: RowFields, *, first: int, largest: int
) -> AsyncGenerator[Sequence[Row]]:
    """Yield all rows with ids greater than `after`, by id, in batches that double in size."""
    size = first
    while rows := await table.page(after, size, fields):
        yield rows
        if len(rows) < size:
            return
        after, size = rows[-1].id, min(size * 2, largest)
