import asyncio
import threading

import pytest

from medley import Error
from medley._transport.flow_control import AsyncWindow, FlowControl, Window


def test_room_is_bounded_in_items_and_in_bytes() -> None:
    room = FlowControl(max_items=2, max_bytes=10)
    room.take(6)
    assert not room.ready(5)
    assert room.ready(4)
    room.take(1)
    assert not room.ready(1)
    room.give()
    assert room.ready(9)


def test_an_item_over_the_bound_goes_alone() -> None:
    room = FlowControl(max_items=2, max_bytes=10)
    assert room.ready(11)
    room.take(11)
    assert not room.ready(0)


def test_nothing_enters_a_closed_room() -> None:
    room = FlowControl()
    room.closed = True
    assert room.ready(1)
    assert not room.take(1)


def test_items_left_unanswered_are_an_error() -> None:
    room = FlowControl()
    room.take(1)
    with pytest.raises(Error, match="1 items unanswered"):
        room.check()
    room.give()
    room.check()


def test_a_thread_waits_for_room_until_an_answer_comes() -> None:
    window = Window(FlowControl(max_items=1))
    assert window.enter(1)
    entered: list[bool] = []
    sender = threading.Thread(target=lambda: entered.append(window.enter(1)))
    sender.start()
    sender.join(0.05)
    assert not entered
    window.leave()
    sender.join(5)
    assert entered == [True]


def test_closing_lets_a_waiting_thread_go() -> None:
    window = Window(FlowControl(max_items=1))
    window.enter(1)
    entered: list[bool] = []
    sender = threading.Thread(target=lambda: entered.append(window.enter(1)))
    sender.start()
    window.close()
    sender.join(5)
    assert entered == [False]


async def test_a_task_waits_for_room_until_an_answer_comes() -> None:
    window = AsyncWindow(FlowControl(max_items=1))
    await window.enter(1)
    entering = asyncio.create_task(window.enter(1))
    await asyncio.sleep(0)
    assert not entering.done()
    window.leave()
    assert await entering
    entering = asyncio.create_task(window.enter(1))
    await asyncio.sleep(0)
    window.close()
    assert not await entering
