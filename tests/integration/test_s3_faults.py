"""A bucket behind a network that delays, cuts, truncates and refuses: no wrong bytes, no waiting for ever."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest

from services.common.concurrency.executors import DeadlineExecutor
from services.common.deadlines import deadline_in
from services.common.errors import ServiceUnavailableError, StorageFullError
from services.common.s3.bucket import S3Bucket
from services.store.adapters.s3_media import PART_BYTES, S3Media
from services.store.core.errors import MediaCorruptError, MediaNotFoundError
from tests.contract.store_media import ANYTHING, CONTENT, NONE, SHA, chunks
from tests.integration.fault_proxy import FULL, SLOW_DOWN, Answer, Change, Cut, Delay, Fault, FaultProxy, Request, Rule
from tests.integration.s3_endpoint import fresh_options
from tests.waiting import HANG_SECONDS, until

pytestmark = pytest.mark.s3

READ_TIMEOUT_SECONDS = 1.0
LARGE = bytes(range(256)) * (PART_BYTES // 256) + b"and a rest"
LARGE_SHA = hashlib.sha256(LARGE).hexdigest()


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    options = fresh_options()
    if options.secure:
        pytest.skip("the proxy does not speak TLS")
    async with FaultProxy(options.endpoint) as proxy:
        yield proxy


@asynccontextmanager
async def media_within(seconds: float, proxy: FaultProxy) -> AsyncIterator[S3Media]:
    """Give media whose calls to the endpoint take at most so many seconds, with all their retries."""
    options = replace(
        fresh_options(), endpoint=proxy.address, timeout_seconds=seconds, read_timeout_seconds=READ_TIMEOUT_SECONDS
    )
    bucket = S3Bucket(options)
    async with DeadlineExecutor("media", 4, "object store", seconds) as threads:
        yield S3Media(bucket, threads, verified_share=1.0)
    bucket.close()


@pytest.fixture
async def media(proxy: FaultProxy) -> AsyncIterator[S3Media]:
    async with media_within(HANG_SECONDS, proxy) as media:
        yield media


def first(times: int, fault: Rule) -> Rule:
    """Return the rule `fault` for the first requests it applies to, and none after that."""
    left = times

    def rule(request: Request) -> Fault | None:
        nonlocal left
        given = fault(request)
        left -= given is not None
        return given if left >= 0 else None

    return rule


def only(which: Callable[[Request], bool], fault: Fault, request: Request) -> Fault | None:
    return fault if which(request) else None


def reads(request: Request) -> bool:
    return request.method == "GET" and "/media/" in request.target


@pytest.mark.parametrize("fault", [Answer(503, SLOW_DOWN), Answer(500), Cut(), Delay(1.5), Cut(body_bytes=100)])
async def test_a_passing_fault_is_not_noticed(media: S3Media, proxy: FaultProxy, fault: Fault) -> None:
    proxy.rule = first(2, lambda _: fault)
    await media.put(chunks(CONTENT), ANYTHING)
    proxy.rule = first(1, lambda request: fault if reads(request) else None)
    assert await media.read(SHA, 0, len(CONTENT)) == CONTENT
    assert proxy.faults[type(fault).__name__] == 3


@pytest.mark.parametrize("fault", [Answer(503, SLOW_DOWN), Cut(), Delay(600), Cut(body_bytes=100)])
async def test_a_lasting_fault_is_told_in_time(media: S3Media, proxy: FaultProxy, fault: Fault) -> None:
    await media.put(chunks(CONTENT), ANYTHING)
    proxy.rule = lambda request: fault if reads(request) else None
    with deadline_in(1.0), pytest.raises(ServiceUnavailableError):
        await media.read(SHA, 0, len(CONTENT))
    async with media_within(1.0, proxy) as hasty:
        with pytest.raises(ServiceUnavailableError):
            await hasty.read(SHA, 0, len(CONTENT))


async def test_truncated_bodies_are_never_taken_for_the_object(media: S3Media, proxy: FaultProxy) -> None:
    await media.put(chunks(CONTENT), ANYTHING)
    for cut in (0, 1, len(CONTENT) // 2, len(CONTENT) - 1):
        proxy.rule = first(1, partial(only, reads, Cut(cut)))
        assert await media.read(SHA, 0, len(CONTENT)) == CONTENT


async def test_changed_bytes_are_refused(media: S3Media, proxy: FaultProxy) -> None:
    await media.put(chunks(CONTENT), ANYTHING)
    proxy.rule = lambda request: Change(lambda answer: answer[:-1] + b"!") if reads(request) else None
    with pytest.raises(MediaCorruptError):
        await media.read(SHA, 0, len(CONTENT))


async def test_a_full_bucket_is_told_at_once(media: S3Media, proxy: FaultProxy) -> None:
    proxy.rule = lambda request: Answer(507, FULL) if request.method == "PUT" else None
    with pytest.raises(StorageFullError):
        await media.put(chunks(CONTENT), ANYTHING)
    assert proxy.faults["Answer"] == 1


async def test_a_missing_object_is_no_outage(media: S3Media, proxy: FaultProxy) -> None:
    proxy.rule = first(1, lambda _: Answer(503, SLOW_DOWN))
    with pytest.raises(MediaNotFoundError):
        await media.read(NONE, 0, 10)


async def test_lost_answers_to_a_large_upload_do_no_harm(media: S3Media, proxy: FaultProxy) -> None:
    """Parts are written, an upload is begun and completed: each time nobody hears at first."""
    proxy.rule = first(1, lambda request: Cut() if "/incoming/" in request.target else None)
    await media.put(chunks(LARGE, 2**20), ANYTHING)
    proxy.rule = first(2, lambda request: Cut() if "uploadId=" in request.target else None)
    await media.put(chunks(LARGE, 2**20), ANYTHING)
    proxy.rule = lambda _: None
    assert hashlib.sha256(await media.read(LARGE_SHA, 0, len(LARGE))).hexdigest() == LARGE_SHA


async def test_an_endpoint_that_comes_back_is_used_again(media: S3Media, proxy: FaultProxy) -> None:
    proxy.rule = lambda _: Cut()
    waiting = asyncio.create_task(media.put(chunks(CONTENT), ANYTHING))
    await until(lambda: proxy.faults["Cut"])
    proxy.rule = lambda _: None
    assert (await waiting).sha256 == SHA
