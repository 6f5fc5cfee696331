"""What indexes may take of a device is planned, and given back."""

import pytest

from services.search.core.errors import IndexTooLargeError
from services.search.engines.device import memory as device_memory
from services.search.engines.device.memory import DeviceMemory


def memory(limit: int | None = 1000, free: int | None = None, workspace: int = 0) -> DeviceMemory:
    free_bytes = None if free is None else lambda: free
    return DeviceMemory("cuda", limit_bytes=limit, free_bytes=free_bytes, workspace_bytes=workspace)


def test_what_does_not_fit_is_refused_with_both_numbers_and_not_counted() -> None:
    device = memory(workspace=100)
    reservation = device.reservation()
    reservation.grow(600)
    with pytest.raises(IndexTooLargeError) as caught:
        reservation.grow(301)
    assert caught.value.metadata == {"needed_bytes": "301", "available_bytes": "300"}
    assert "301 bytes" in str(caught.value)
    assert "cuda" in str(caught.value)
    assert "300 left" in str(caught.value)
    reservation.grow(300)
    assert (reservation.reserved_bytes, device.left_bytes()) == (900, 0)


def test_indexes_share_the_device() -> None:
    device = memory()
    first, second = device.reservation(), device.reservation()
    first.grow(700)
    with pytest.raises(IndexTooLargeError):
        second.grow(400)
    first.shrink(200)
    second.grow(400)


def test_an_index_that_is_gone_gives_back_what_it_took() -> None:
    device = memory()
    reservation = device.reservation()
    reservation.grow(1000)
    assert device.left_bytes() == 0
    del reservation
    assert device.left_bytes() == 1000


def test_what_others_took_of_the_device_counts() -> None:
    device = memory(limit=1000, free=50)
    with pytest.raises(IndexTooLargeError) as caught:
        device.reservation().grow(51)
    assert caught.value.metadata["available_bytes"] == "50"


def test_less_than_nothing_is_told_as_nothing() -> None:
    with pytest.raises(IndexTooLargeError) as caught:
        memory(limit=10, workspace=100).reservation().grow(1)
    assert caught.value.metadata["available_bytes"] == "0"


def test_where_nobody_knows_there_is_no_limit() -> None:
    device = memory(limit=None)
    device.reservation().grow(10**18)
    assert device.left_bytes() is None


def test_an_index_that_did_not_fit_takes_nothing_from_others_when_it_is_tried_again() -> None:
    device = memory()
    large = device.reservation("photos")
    large.grow(900)
    with pytest.raises(IndexTooLargeError):
        large.grow(300)
    del large
    with pytest.raises(IndexTooLargeError) as caught:
        device.reservation("photos").grow(10)
    assert caught.value.metadata == {"needed_bytes": "1200", "available_bytes": "1000"}
    device.reservation("others").grow(10)
    device.reservation().grow(10)


def test_after_a_while_it_may_try_whether_it_became_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    device = memory()
    for _ in range(3):
        with pytest.raises(IndexTooLargeError):
            device.reservation("photos").grow(1001)
    monkeypatch.setattr(device_memory, "REMEMBERED_SECONDS", 0.0)
    device.reservation("photos").grow(10)


def test_with_room_for_what_it_came_to_it_is_built() -> None:
    device = memory()
    other = device.reservation("others")
    other.grow(500)
    with pytest.raises(IndexTooLargeError):
        device.reservation("photos").grow(600)
    other.shrink(400)
    device.reservation("photos").grow(10)


def test_an_index_that_was_refused_to_grow_goes_on_growing_when_it_needs_less() -> None:
    device = memory()
    reservation = device.reservation("photos")
    reservation.grow(500)
    with pytest.raises(IndexTooLargeError):
        reservation.grow(600)
    reservation.grow(500)
