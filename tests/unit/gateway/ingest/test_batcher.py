"""Gathering items into batches."""

import asyncio
import time

from services.common.errors import IdError
from services.gateway.ingest.batcher import Batches, BatchLimits, Entry
from services.gateway.ingest.validation import ValidatedItem

LIMITS = BatchLimits(items=3, bytes=100, seconds=0.01)


def entry(sequence: int, item_id: str = "", size: int = 1) -> Entry:
    item_id = item_id or f"item{sequence}"
    return Entry(sequence, item_id, ValidatedItem(item_id, "a text", None, "", {}), None, size)


def filled(*entries: Entry, limits: BatchLimits = LIMITS) -> Batches:
    batches = Batches(limits)
    for each in entries:
        batches.put(each)
    return batches


def sequences(batch: list[Entry]) -> list[int]:
    return [each.sequence for each in batch]


async def drained(batches: Batches) -> list[list[int]]:
    batches.close()
    taken = []
    while await batches.wait():
        taken.append(sequences(batches.take()))
    return taken


async def test_a_batch_has_so_many_items_at_most() -> None:
    assert await drained(filled(*map(entry, range(7)))) == [[0, 1, 2], [3, 4, 5], [6]]


async def test_a_batch_has_so_many_bytes_at_most() -> None:
    assert await drained(filled(entry(0, size=60), entry(1, size=60), entry(2, size=40))) == [[0], [1, 2]]


async def test_an_item_over_the_limit_goes_alone() -> None:
    assert await drained(filled(entry(0), entry(1, size=500), entry(2))) == [[0], [1], [2]]


async def test_an_id_never_comes_twice_in_a_batch() -> None:
    assert await drained(filled(entry(0, "a"), entry(1, "b"), entry(2, "a"))) == [[0, 1], [2]]


async def test_refused_items_go_along_in_order() -> None:
    refused = Entry(1, "", IdError("", "is empty"), None, 1)
    assert await drained(filled(entry(0), refused, entry(2))) == [[0, 1, 2]]


async def test_a_full_batch_does_not_wait() -> None:
    batches = filled(*map(entry, range(3)), limits=BatchLimits(3, 100, seconds=60))
    assert await asyncio.wait_for(batches.wait(), 1)


async def test_enough_bytes_do_not_wait() -> None:
    batches = filled(entry(0, size=100), limits=BatchLimits(3, 100, seconds=60))
    assert await asyncio.wait_for(batches.wait(), 1)


async def test_a_lone_item_waits_a_short_time_only() -> None:
    batches = filled(entry(0))
    began = time.monotonic()
    assert await batches.wait()
    assert LIMITS.seconds * 0.9 <= time.monotonic() - began < 1
    assert sequences(batches.take()) == [0]


async def test_what_comes_while_waiting_is_taken_along() -> None:
    batches = filled(entry(0))
    assert await batches.wait()
    batches.put(entry(1))
    assert sequences(batches.take()) == [0, 1]


async def test_waits_for_the_first_item() -> None:
    batches = Batches(LIMITS)
    waiting = asyncio.create_task(batches.wait())
    await asyncio.sleep(0.02)
    assert not waiting.done()
    batches.put(entry(0))
    assert await waiting


async def test_the_end_does_not_wait() -> None:
    batches = filled(entry(0), limits=BatchLimits(3, 100, seconds=60))
    batches.close()
    assert await asyncio.wait_for(batches.wait(), 1)
    batches.take()
    assert not await batches.wait()
