"""Recall is kept by what filters leave, and guards a space that falls below its floor."""

import asyncio
import threading

import numpy as np
import pytest

from services.common.vectors import Metric
from services.search.ann.recall_monitor import MAX_QUEUED, MIN_QUERIES, WINDOW, RecallMonitor, RecallRecord, recall_of
from services.search.core.collection_index import Recall
from tests.waiting import HANG_SECONDS


def add(record: RecallRecord, share: float, recall: float, times: int, floor: float = 0.9) -> None:
    for _ in range(times):
        record.add(share, recall, floor)


def test_recall_is_kept_by_the_share_that_filters_leave() -> None:
    record = RecallRecord()
    for share, recall in [(1.0, 1.0), (1.0, 0.5), (0.9, 0.8), (0.5, 0.75), (0.2, 0.75), (0.15, 0.25)]:
        record.add(share, recall, 0.1)
    assert record.recalls() == [
        Recall(0.0, 0.2, 0.5, 2),
        Recall(0.2, 0.5, 0.75, 1),
        Recall(0.5, 1.0, 0.8, 1),
        Recall(1.0, 1.0, 0.75, 2),
    ]


def test_only_the_last_queries_count() -> None:
    record = RecallRecord()
    add(record, 1.0, 0.0, WINDOW, floor=0)
    add(record, 1.0, 1.0, WINDOW, floor=0)
    assert record.recalls() == [Recall(1.0, 1.0, 1.0, WINDOW)]


def test_few_queries_prove_nothing() -> None:
    record = RecallRecord()
    add(record, 1.0, 0.0, MIN_QUERIES - 1)
    assert not record.degraded
    add(record, 1.0, 0.0, 1)
    assert record.degraded
    assert "0.000 over 20 queries without a filter, below 0.9" in record.note


def test_a_space_is_guarded_for_any_share_that_falls() -> None:
    record = RecallRecord()
    add(record, 1.0, 1.0, 100)
    add(record, 0.3, 0.8, MIN_QUERIES)
    assert record.degraded
    assert "20% to 50%" in record.note


def test_it_recovers_when_what_fell_is_safely_above_again() -> None:
    record = RecallRecord()
    add(record, 0.3, 0.5, MIN_QUERIES)
    add(record, 1.0, 1.0, WINDOW)
    assert record.degraded
    add(record, 0.3, 0.91, WINDOW)
    assert record.degraded
    add(record, 0.3, 1.0, WINDOW)
    assert not record.degraded
    assert record.note == ""


def test_a_tie_with_a_best_one_is_a_best_one() -> None:
    exact = np.array([0.9, *[0.5] * 14], np.float32)
    found = np.array([0.9, *[0.5] * 8, 0.4], np.float32)
    assert recall_of(found, exact, Metric.COSINE) == 0.9
    assert recall_of(exact, exact, Metric.COSINE) == 1.0
    assert recall_of(np.array([1.0, 4.0], np.float32), np.array([1.0, 2.0, 3.0], np.float32), Metric.EUCLIDEAN) == (
        pytest.approx(1 / 3)
    )


async def test_queries_are_repeated_by_another_thread_and_failures_harm_nothing() -> None:
    monitor, seen = RecallMonitor(1.0), threading.Event()
    names: list[str] = []

    def fail() -> None:
        raise RuntimeError("no such space")

    def note() -> None:
        names.append(threading.current_thread().name)
        seen.set()

    async with monitor.running():
        assert monitor.submit(fail)
        assert monitor.submit(note)
        assert await asyncio.to_thread(seen.wait, 5)
    assert names == ["recall"]
    assert not [thread for thread in threading.enumerate() if thread.name == "recall"]


def test_what_cannot_be_kept_up_with_is_dropped() -> None:
    monitor = RecallMonitor(1.0)
    assert all(monitor.submit(lambda: None) for _ in range(MAX_QUEUED))
    assert not monitor.submit(lambda: None)


async def test_a_full_queue_does_not_hold_up_the_end() -> None:
    monitor, going = RecallMonitor(1.0), threading.Event()

    def wait() -> None:
        going.wait(0.2)

    async with asyncio.timeout(HANG_SECONDS):
        async with monitor.running():
            monitor.submit(wait)
            while monitor.submit(lambda: None):
                pass
    assert monitor.sample(10) == ()


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (1.0, 5000, 5000), (0.1, 300, 700)])
def test_the_share_that_was_set_is_chosen(share: float, least: int, most: int) -> None:
    assert least <= len(RecallMonitor(share).sample(5000)) <= most
