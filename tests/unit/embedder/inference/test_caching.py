import asyncio

import pytest

from services.common.deadlines import deadline_in
from services.common.errors import OverloadedError
from services.common.vectors import Matrix
from services.embedder.inference.caching import CachedTextEncoder
from tests.unit.embedder.encoders import HeldTextEncoder, settle


@pytest.fixture
def inner() -> HeldTextEncoder:
    return HeldTextEncoder()


@pytest.fixture
def encoder(inner: HeldTextEncoder) -> CachedTextEncoder:
    return CachedTextEncoder(inner, entries=3)


async def start(encoder: CachedTextEncoder, *texts: str) -> asyncio.Task[Matrix]:
    task = asyncio.create_task(encoder.encode(texts))
    await settle()
    return task


async def test_a_text_is_encoded_once(encoder: CachedTextEncoder, inner: HeldTextEncoder) -> None:
    inner.gate.set()
    for _ in range(2):
        assert (await encoder.encode(["a", "bb"])).tolist() == [[1], [2]]
    assert inner.given == [["a", "bb"]]


async def test_a_text_twice_in_a_call_is_encoded_once(encoder: CachedTextEncoder, inner: HeldTextEncoder) -> None:
    inner.gate.set()
    assert (await encoder.encode(["a", "bb", "a"])).tolist() == [[1], [2], [1]]
    assert inner.given == [["a", "bb"]]


async def test_calls_at_the_same_time_share_the_work(encoder: CachedTextEncoder, inner: HeldTextEncoder) -> None:
    tasks = [await start(encoder, *texts) for texts in (("a",), ("a",), ("a", "bb"), ("bb", "ccc"))]
    inner.gate.set()
    assert [(await task).ravel().tolist() for task in tasks] == [[1], [1], [1, 2], [2, 3]]
    assert inner.given == [["a"], ["bb"], ["ccc"]]


async def test_the_least_recently_asked_goes_first(encoder: CachedTextEncoder, inner: HeldTextEncoder) -> None:
    inner.gate.set()
    for text in ("a", "b", "c", "a", "d", "a", "b"):
        await encoder.encode([text])
    assert inner.given == [["a"], ["b"], ["c"], ["d"], ["b"]]


async def test_without_entries_work_is_still_shared(inner: HeldTextEncoder) -> None:
    encoder = CachedTextEncoder(inner, entries=0)
    tasks = [await start(encoder, "a") for _ in range(2)]
    inner.gate.set()
    await asyncio.gather(*tasks)
    await encoder.encode(["a"])
    assert inner.given == [["a"], ["a"]]


async def test_cancelling_the_first_call_leaves_the_second(encoder: CachedTextEncoder, inner: HeldTextEncoder) -> None:
    first, second = [await start(encoder, "a") for _ in range(2)]
    first.cancel()
    await settle()
    inner.gate.set()
    assert (await second).tolist() == [[1]]
    assert (inner.cancelled, len(inner.given)) == (0, 1)


async def test_when_the_last_call_leaves_the_work_is_dropped(
    encoder: CachedTextEncoder, inner: HeldTextEncoder
) -> None:
    tasks = [await start(encoder, "a") for _ in range(2)]
    for task in tasks:
        task.cancel()
    await settle()
    assert inner.cancelled == 1


async def test_who_comes_just_as_work_is_dropped_begins_anew(
    encoder: CachedTextEncoder, inner: HeldTextEncoder
) -> None:
    first = await start(encoder, "a")
    first.cancel()
    late = asyncio.create_task(encoder.encode(["a"]))  # runs after the cancelled call, before the cancelled work
    await settle()
    inner.gate.set()
    assert (await late).tolist() == [[1]]


async def test_an_error_reaches_all_and_is_not_kept(encoder: CachedTextEncoder, inner: HeldTextEncoder) -> None:
    inner.error = OverloadedError("too much")
    tasks = [await start(encoder, "a") for _ in range(2)]
    inner.gate.set()
    assert await asyncio.gather(*tasks, return_exceptions=True) == [inner.error, inner.error]
    inner.error = None
    assert (await encoder.encode(["a"])).tolist() == [[1]]


async def test_the_first_callers_deadline_is_not_the_others(encoder: CachedTextEncoder, inner: HeldTextEncoder) -> None:
    async def hurried() -> None:
        with deadline_in(0.01):
            async with asyncio.timeout(0.01):
                await encoder.encode(["a"])

    task = asyncio.create_task(hurried())
    await settle()
    patient = await start(encoder, "a")
    with pytest.raises(TimeoutError):
        await task
    inner.gate.set()
    assert (await patient).tolist() == [[1]]


async def test_what_a_caller_does_to_its_vectors_stays_its_own(
    encoder: CachedTextEncoder, inner: HeldTextEncoder
) -> None:
    inner.gate.set()
    vectors = await encoder.encode(["a"])
    vectors[:] = 99
    assert (await encoder.encode(["a"])).tolist() == [[1]]


async def test_no_texts(encoder: CachedTextEncoder, inner: HeldTextEncoder) -> None:
    inner.gate.set()
    assert (await encoder.encode([])).shape == (0, 1)
