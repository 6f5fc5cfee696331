import asyncio
import threading

import pytest

from medley import Error
from medley._transport.flow_control import AsyncWindow, FlowControl, Window


def test_flow_control_is_bounded_in_items_and_in_bytes() -> None:
    flow = FlowControl(max_items=2, max_bytes=10)
    flow.acquire(6)
    assert not flow.ready(5)
    assert flow.ready(4)
    flow.acquire(1)
    assert not flow.ready(1)
    flow.release()
    assert flow.ready(9)


def test_an_item_over_the_bound_goes_alone() -> None:
    flow = FlowControl(max_items=2, max_bytes=10)
    assert flow.ready(11)
    flow.acquire(11)
    assert not flow.ready(0)


def test_nothing_is_admitted_by_a_closed_window() -> None:
    flow = FlowControl()
    flow.closed = True
    assert flow.ready(1)
    assert not flow.acquire(1)


def test_items_left_unanswered_are_an_error() -> None:
    flow = FlowControl()
    flow.acquire(1)
    with pytest.raises(Error, match="1 items unanswered"):
        flow.check()
    flow.release()
    flow.check()


def test_a_thread_waits_until_an_answer_comes() -> None:
    window = Window(FlowControl(max_items=1))
    assert window.acquire(1)
    acquired: list[bool] = []
    sender = threading.Thread(target=lambda: acquired.append(window.acquire(1)))
    sender.start()
    sender.join(0.05)
    assert not acquired
    window.release()
    sender.join(5)
    assert acquired == [True]


def test_closing_lets_a_waiting_thread_go() -> None:
    window = Window(FlowControl(max_items=1))
    window.acquire(1)
    acquired: list[bool] = []
    sender = threading.Thread(target=lambda: acquired.append(window.acquire(1)))
    sender.start()
    window.close()
    sender.join(5)
    assert acquired == [False]


async def test_a_task_waits_until_an_answer_comes() -> None:
    window = AsyncWindow(FlowControl(max_items=1))
    await window.acquire(1)
    acquiring = asyncio.create_task(window.acquire(1))
    await asyncio.sleep(0)
    assert not acquiring.done()
    window.release()
    assert await acquiring
    acquiring = asyncio.create_task(window.acquire(1))
    await asyncio.sleep(0)
    window.close()
    assert not await acquiring
