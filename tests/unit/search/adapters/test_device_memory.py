"""What indexes may take of a device is planned, and given back."""

import pytest

from services.search.adapters.device_memory import DeviceMemory
from services.search.errors import IndexTooLargeError


def memory(limit: int | None = 1000, free: int | None = None, workspace: int = 0) -> DeviceMemory:
    free_bytes = None if free is None else lambda: free
    return DeviceMemory("cuda", limit_bytes=limit, free_bytes=free_bytes, workspace_bytes=workspace)


def test_what_does_not_fit_is_refused_with_both_numbers_and_not_counted() -> None:
    device = memory(workspace=100)
    account = device.account()
    account.take(600)
    with pytest.raises(IndexTooLargeError) as caught:
        account.take(301)
    assert caught.value.metadata == {"needed_bytes": "301", "available_bytes": "300"}
    assert "301 bytes" in str(caught.value)
    assert "cuda" in str(caught.value)
    assert "300 left" in str(caught.value)
    account.take(300)
    assert (account.taken_bytes, device.left_bytes()) == (900, 0)


def test_indexes_share_the_device() -> None:
    device = memory()
    first, second = device.account(), device.account()
    first.take(700)
    with pytest.raises(IndexTooLargeError):
        second.take(400)
    first.give(200)
    second.take(400)


def test_an_index_that_is_gone_gives_back_what_it_took() -> None:
    device = memory()
    account = device.account()
    account.take(1000)
    assert device.left_bytes() == 0
    del account
    assert device.left_bytes() == 1000


def test_what_others_took_of_the_device_counts() -> None:
    device = memory(limit=1000, free=50)
    with pytest.raises(IndexTooLargeError) as caught:
        device.account().take(51)
    assert caught.value.metadata["available_bytes"] == "50"


def test_less_than_nothing_is_told_as_nothing() -> None:
    with pytest.raises(IndexTooLargeError) as caught:
        memory(limit=10, workspace=100).account().take(1)
    assert caught.value.metadata["available_bytes"] == "0"


def test_where_nobody_knows_there_is_no_limit() -> None:
    device = memory(limit=None)
    device.account().take(10**18)
    assert device.left_bytes() is None
