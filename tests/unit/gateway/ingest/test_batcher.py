"""Gathering items into batcher."""

import asyncio
import time

from services.common.errors import IdError
from services.gateway.ingest.batcher import BatchLimits, ItemBatcher, PendingItem
from services.gateway.ingest.validation import ValidatedItem
from tests.waiting import HANG_SECONDS

LIMITS = BatchLimits(items=3, bytes=100, seconds=0.01)


def make_item(sequence: int, item_id: str = "", size: int = 1) -> PendingItem:
    item_id = item_id or f"item{sequence}"
    return PendingItem(sequence, item_id, ValidatedItem(item_id, "a text", None, "", {}), None, size)


def make_batcher(*items: PendingItem, limits: BatchLimits = LIMITS) -> ItemBatcher:
    batcher = ItemBatcher(limits)
    for each in items:
        batcher.put(each)
    return batcher


def sequences(batch: list[PendingItem]) -> list[int]:
    return [each.sequence for each in batch]


async def drain(batcher: ItemBatcher) -> list[list[int]]:
    batcher.close()
    taken = []
    while await batcher.wait():
        taken.append(sequences(batcher.take()))
    return taken


async def test_a_batch_has_so_many_items_at_most() -> None:
    assert await drain(make_batcher(*map(make_item, range(7)))) == [[0, 1, 2], [3, 4, 5], [6]]


async def test_a_batch_has_so_many_bytes_at_most() -> None:
    assert await drain(make_batcher(make_item(0, size=60), make_item(1, size=60), make_item(2, size=40))) == [
        [0],
        [1, 2],
    ]


async def test_an_item_over_the_limit_goes_alone() -> None:
    assert await drain(make_batcher(make_item(0), make_item(1, size=500), make_item(2))) == [[0], [1], [2]]


async def test_an_id_never_comes_twice_in_a_batch() -> None:
    assert await drain(make_batcher(make_item(0, "a"), make_item(1, "b"), make_item(2, "a"))) == [[0, 1], [2]]


async def test_refused_items_go_along_in_order() -> None:
    refused = PendingItem(1, "", IdError("", "is empty"), None, 1)
    assert await drain(make_batcher(make_item(0), refused, make_item(2))) == [[0, 1, 2]]


async def test_a_full_batch_does_not_wait() -> None:
    batcher = make_batcher(*map(make_item, range(3)), limits=BatchLimits(3, 100, seconds=3600))
    assert await asyncio.wait_for(batcher.wait(), HANG_SECONDS)


async def test_enough_bytes_do_not_wait() -> None:
    batcher = make_batcher(make_item(0, size=100), limits=BatchLimits(3, 100, seconds=3600))
    assert await asyncio.wait_for(batcher.wait(), HANG_SECONDS)


async def test_a_lone_item_waits_a_short_time_only() -> None:
    batcher = make_batcher(make_item(0))
    began = time.monotonic()
    assert await batcher.wait()
    assert time.monotonic() - began >= LIMITS.seconds * 0.9
    assert sequences(batcher.take()) == [0]


async def test_what_comes_while_waiting_is_taken_along() -> None:
    batcher = make_batcher(make_item(0))
    assert await batcher.wait()
    batcher.put(make_item(1))
    assert sequences(batcher.take()) == [0, 1]


async def test_waits_for_the_first_item() -> None:
    batcher = ItemBatcher(LIMITS)
    waiting = asyncio.create_task(batcher.wait())
    await asyncio.sleep(0.02)
    assert not waiting.done()
    batcher.put(make_item(0))
    assert await waiting


async def test_the_end_does_not_wait() -> None:
    batcher = make_batcher(make_item(0), limits=BatchLimits(3, 100, seconds=3600))
    batcher.close()
    assert await asyncio.wait_for(batcher.wait(), HANG_SECONDS)
    batcher.take()
    assert not await batcher.wait()
