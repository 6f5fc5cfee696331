"""Reads from a collection."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from services.common.errors import IdError, ItemNotFoundError, MessageTooLargeError, ServiceError
from services.common.filters import Filter
from services.common.names import validate_item_id
from services.store.core.media_store import MediaStore
from services.store.core.mutations import satisfies
from services.store.core.rows import Part, Parts, Row
from services.store.core.table import Snapshot
from services.store.core.tags import Tags
from services.store.core.validation import check_number

LOT = 128  # full rows read at a time
FIRST_STEP = 1000  # rows looked through for a filter, to begin with
LARGEST_STEP = 16_000


@dataclass(frozen=True, slots=True)
class FieldMask:
    """What a reader wants of each row: parts, and whether the bytes of its media."""

    parts: Parts
    media_bytes: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A row as asked for; `data` are its media's bytes, None where not asked for or too large to inline."""

    row: Row
    wanted: FieldMask
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some items by id; `last_id` is set where more follow."""

    items: list[Item] = field(default_factory=list)
    last_id: str | None = None


class Reader:
    """Answers what is in a collection. No answer has more than about `max_answer_bytes`."""

    def __init__(
        self,
        history: Tags,
        media: MediaStore,
        *,
        max_inline_bytes: int,
        max_answer_bytes: int,
    ) -> None:
        self._history = history
        self._media = media
        self._max_inline_bytes = max_inline_bytes
        self._max_answer_bytes = max_answer_bytes

    async def get(
        self, collection: str, ids: Sequence[str], wanted: FieldMask, as_of: str = ""
    ) -> list[Item | ServiceError]:
        """Return for each of `ids` its item or why there is none, in order; `as_of` a version or tag, "" for now.

        Raises:
            VersionExpiredError, VersionUnknownError, TagNotFoundError: there is nothing to read as of then.
            CollectionNotFoundError: no such collection.
            ArgumentError: no ids, or too many.
            MessageTooLargeError: together the items are too large.
        """
        check_number("ids", len(ids))
        table = await self._history.snapshot(collection, as_of)
        faults: dict[str, Item | ServiceError] = {row_id: fault for row_id in ids if (fault := _fault(row_id))}
        rows = (await table.get({row_id for row_id in ids if row_id not in faults}, wanted.parts)).rows
        size = sum(self._size(rows[row_id], wanted) for row_id in ids if row_id in rows)
        if size > self._max_answer_bytes:
            problem = f"the answer has {size} bytes, {self._max_answer_bytes} at most: ask for fewer items or fields"
            raise MessageTooLargeError(problem, size=str(size), limit=str(self._max_answer_bytes))
        items = await self._items(rows.values(), wanted)
        outcomes = faults | dict(zip(rows, items, strict=True))
        return [outcomes.get(row_id) or ItemNotFoundError(row_id) for row_id in ids]

    async def page(
        self,
        collection: str,
        condition: Filter | None,
        *,
        after: str | None,
        size: int,
        wanted: FieldMask,
        as_of: str = "",
    ) -> Page:
        """Return at most `size` items with ids over `after` that satisfy `condition`, by id.

        Fewer come, though more follow, where they would be too large together.
        """
        table = await self._history.snapshot(collection, as_of)
        items: list[Item] = []
        total = 0
        async with aclosing(_ordered(table, condition, after, size, wanted.parts)) as rows:
            async for row in rows:
                total += self._size(row, wanted)
                if items and (len(items) == size or total > self._max_answer_bytes):
                    return Page(items, items[-1].row.id)
                items.append(await self._item(row, wanted))
        return Page(items)

    async def count(self, collection: str, condition: Filter | None, as_of: str = "") -> int:
        """Return how many items satisfy `condition`."""
        table = await self._history.snapshot(collection, as_of)
        if condition is None:
            return await table.count()
        counts = [
            sum(satisfies(row, condition) for row in rows) async for rows in table.scan(frozenset({Part.METADATA}))
        ]
        return sum(counts)

    async def _items(self, rows: Collection[Row], wanted: FieldMask) -> Sequence[Item | ServiceError]:
        if not wanted.media_bytes:
            return [Item(row, wanted) for row in rows]
        return await asyncio.gather(*(self._item_or_fault(row, wanted) for row in rows))

    async def _item_or_fault(self, row: Row, wanted: FieldMask) -> Item | ServiceError:
        try:
            return await self._item(row, wanted)
        except ServiceError as error:
            return error

    async def _item(self, row: Row, wanted: FieldMask) -> Item:
        if not wanted.media_bytes or row.media is None or row.media.size_bytes > self._max_inline_bytes:
            return Item(row, wanted)
        return Item(row, wanted, await self._media.read(row.media.sha256, 0, row.media.size_bytes))

    def _size(self, row: Row, wanted: FieldMask) -> int:
        size = len(row.metadata_json.encode()) + len((row.text or "").encode())
        size += sum(vector.nbytes for vector in row.vectors.values())
        if wanted.media_bytes and row.media is not None and row.media.size_bytes <= self._max_inline_bytes:
            size += row.media.size_bytes
        return size


def _fault(row_id: str) -> IdError | None:
    try:
        validate_item_id(row_id)
    except IdError as error:
        return error
    return None


async def _ordered(
    table: Snapshot, condition: Filter | None, after: str | None, size: int, parts: Parts
) -> AsyncGenerator[Row]:
    """Yield the rows with ids over `after` that satisfy `condition`, by id."""
    if condition is None:
        async for rows in _pages(table, after, parts, first=min(size + 1, LOT), largest=LOT):
            for row in rows:
                yield row
        return
    async for rows in _pages(table, after, frozenset({Part.METADATA}), first=FIRST_STEP, largest=LARGEST_STEP):
        ids = [row.id for row in rows if satisfies(row, condition)]
        for start in range(0, len(ids), LOT):
            lot = ids[start : start + LOT]
            found = (await table.get(lot, parts | {Part.METADATA})).rows
            for row_id in lot:
                if row_id in found and satisfies(found[row_id], condition):
                    yield found[row_id]


async def _pages(
    table: Snapshot, after: str | None, parts: Parts, *, first: int, largest: int
) -> AsyncGenerator[Sequence[Row]]:
    """Yield all rows with ids over `after`, by id, in steps that double."""
    step = first
    while rows := await table.page(after, step, parts):
        yield rows
        if len(rows) < step:
            return
        after, step = rows[-1].id, min(step * 2, largest)
