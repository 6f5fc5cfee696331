"""Media in a bucket: the contract, and what only a bucket has."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import urllib3
from minio.error import S3Error

from services.common.concurrency.executors import DeadlineExecutor
from services.common.errors import ServiceUnavailableError
from services.common.s3.bucket import ObjectInfo, S3Bucket
from services.common.s3.options import S3Options
from services.store.adapters import s3_media
from services.store.adapters.s3_media import S3Media
from services.store.core.errors import MediaCorruptError, MediaNotFoundError
from services.store.core.media_store import Announcement
from tests.contract.store_media import ANYTHING, CONTENT, NONE, SHA, MediaStoreContract, before, chunks, soon
from tests.integration.s3_endpoint import fresh_options
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.s3

MIB = 2**20
LARGE = bytes(range(256)) * (s3_media.PART_BYTES // 256 * 2) + b"and a rest"
LARGE_SHA = hashlib.sha256(LARGE).hexdigest()
PATH = f"media/{SHA[:2]}/{SHA}"


@pytest.fixture
def options() -> S3Options:
    return fresh_options()


@pytest.fixture
def bucket(options: S3Options) -> S3Bucket:
    return S3Bucket(options)


@pytest.fixture
async def media(bucket: S3Bucket) -> AsyncIterator[S3Media]:
    async with DeadlineExecutor("media", 4, "object store", 20) as threads:
        yield S3Media(bucket, threads, verified_share=1.0)
    bucket.remove_all([entry.path for entry in bucket.entries("")])
    bucket.close()


class TestS3Media(MediaStoreContract):
    @pytest.fixture
    async def media(self, media: S3Media) -> S3Media:
        return media


def paths(bucket: S3Bucket) -> set[str]:
    return {entry.path for entry in bucket.entries("")}


async def test_a_large_object_is_put_together_of_parts(media: S3Media, bucket: S3Bucket) -> None:
    stored = await media.put(chunks(LARGE, MIB), Announcement(len(LARGE), LARGE_SHA))
    assert (stored.sha256, stored.size_bytes) == (LARGE_SHA, len(LARGE))
    assert paths(bucket) == {f"media/{LARGE_SHA[:2]}/{LARGE_SHA}"}
    assert await media.read(LARGE_SHA, 0, len(LARGE)) == LARGE
    assert await media.read(LARGE_SHA, s3_media.PART_BYTES - 2, 4) == LARGE[s3_media.PART_BYTES - 2 :][:4]


async def test_large_uploads_take_turns(media: S3Media) -> None:
    """So that their parts do not fill the memory; small ones need not wait."""
    media._large_uploads = asyncio.Semaphore(1)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield LARGE[: 2 * MIB]
        begun.set()
        await go_on.wait()
        yield LARGE[2 * MIB :]

    first = asyncio.create_task(media.put(slow(), ANYTHING))
    await begun.wait()
    second = asyncio.create_task(media.put(chunks(LARGE[MIB:], MIB), ANYTHING))
    await asyncio.wait_for(media.put(chunks(CONTENT), ANYTHING), HANG_SECONDS)
    assert not second.done()
    go_on.set()
    assert (await first).sha256 == LARGE_SHA
    await second
    with pytest.raises(ConnectionResetError):
        await media.put(failing_after(LARGE), ANYTHING)
    assert not media._large_uploads.locked()


async def failing_after(content: bytes) -> AsyncIterator[bytes]:
    async for chunk in chunks(content, MIB):
        yield chunk
    raise ConnectionResetError


async def test_a_large_upload_that_breaks_off_leaves_nothing(media: S3Media, bucket: S3Bucket) -> None:
    with pytest.raises(ConnectionResetError):
        await media.put(failing_after(LARGE), ANYTHING)
    assert paths(bucket) == set()


async def test_uploads_of_the_same_at_the_same_time_are_one(media: S3Media, bucket: S3Bucket) -> None:
    await asyncio.gather(*(media.put(chunks(LARGE, MIB), ANYTHING) for _ in range(3)))
    assert paths(bucket) == {f"media/{LARGE_SHA[:2]}/{LARGE_SHA}"}


async def test_a_claim_counts_as_use(media: S3Media, bucket: S3Bucket) -> None:
    await media.put(chunks(CONTENT), ANYTHING)
    put = bucket.look_up(PATH)
    assert put is not None
    await asyncio.sleep(2.1)
    assert await media.claim([SHA]) == {SHA: len(CONTENT)}
    between = put.written + timedelta(seconds=1.5)
    assert not await media.delete(SHA, between)
    assert [sha256 async for sha256 in media.unused_since(between)] == []
    assert await media.delete(SHA, soon())
    assert paths(bucket) == set()


async def test_a_claim_of_nothing_leaves_nothing(media: S3Media, bucket: S3Bucket) -> None:
    assert await media.claim([NONE]) == {}
    assert paths(bucket) == set()


async def test_who_uses_an_object_waits_for_who_is_about_to_delete_it(media: S3Media, bucket: S3Bucket) -> None:
    """The deleter has found the object unused, and is about to delete it: the same bytes put now must stay."""
    await media.put(chunks(CONTENT), ANYTHING)
    bucket.put(f"collecting/{SHA}.1", b"")
    putting = asyncio.create_task(media.put(chunks(CONTENT), ANYTHING))
    claiming = asyncio.create_task(media.claim([SHA]))
    await asyncio.sleep(0.5)
    assert not putting.done()
    assert not claiming.done()
    bucket.remove(PATH)
    bucket.remove(f"collecting/{SHA}.1")
    await putting
    await claiming
    assert await media.read(SHA, 0, len(CONTENT)) == CONTENT


async def test_who_asks_during_a_look_gets_the_next_one(media: S3Media, bucket: S3Bucket) -> None:
    """What was written before the question is in the answer, whoever else is just being answered."""
    for number in range(5):
        earlier = asyncio.create_task(media._collecting.now())
        await asyncio.sleep(0.001 * number)
        bucket.put(f"collecting/{number:064x}.1", b"")
        answers = await asyncio.gather(*(media._collecting.now() for _ in range(3)))
        assert all(f"{number:064x}" in answer for answer in answers)
        await earlier


async def test_an_object_under_deletion_for_long_is_told(
    media: S3Media, bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_media, "TIMEOUT_SECONDS", 0.2)
    await media.put(chunks(CONTENT), ANYTHING)
    bucket.put(f"collecting/{SHA}.1", b"")
    with pytest.raises(ServiceUnavailableError, match="about to delete"):
        await media.claim([SHA])


async def test_deleting_while_using_loses_nothing(media: S3Media) -> None:
    """Unused objects are deleted while others put and claim them: whoever was told that one is there can read it."""
    contents = [bytes([number]) * 100 for number in range(1, 9)]
    stored = [(await media.put(chunks(content), ANYTHING)).sha256 for content in contents]
    await asyncio.sleep(2.1)
    cutoff = datetime.now(UTC)
    puts = asyncio.gather(*(media.put(chunks(content), ANYTHING) for content in contents[:4]))
    claims = asyncio.gather(*(media.claim([sha256]) for sha256 in stored[4:]))
    await asyncio.gather(*(media.delete(sha256, cutoff) for sha256 in [*stored, *stored]))
    told = {each.sha256 for each in await puts} | {sha256 for each in await claims for sha256 in each}
    assert told >= set(stored[:4])
    for sha256, content in zip(stored, contents, strict=True):
        if sha256 in told:
            assert await media.read(sha256, 0, 100) == content


async def test_a_start_removes_what_a_crash_left(
    media: S3Media, bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = {"incoming/crashed/00000", f"collecting/{SHA}.1"}
    for path in left:
        bucket.put(path, b"left")
    await media.open()
    assert paths(bucket) == left
    monkeypatch.setattr(s3_media, "LEFT_PARTS", timedelta(seconds=-10))
    monkeypatch.setattr(s3_media, "LEFT_MARKS", timedelta(seconds=-10))
    await media.open()
    assert paths(bucket) == set()


async def test_a_start_ends_uploads_that_a_crash_left_unfinished(
    media: S3Media, bucket: S3Bucket, options: S3Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.client._create_multipart_upload(options.bucket, options.key(PATH), {})

    def left() -> int:
        return len(bucket.client._list_multipart_uploads(options.bucket, prefix=options.key(PATH)).uploads)

    await media.open()
    assert left() == 1
    monkeypatch.setattr(s3_media, "LEFT_PARTS", timedelta(seconds=-10))
    await media.open()
    assert left() == 0


async def test_bytes_that_changed_are_not_handed_out(
    media: S3Media, bucket: S3Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    await media.put(chunks(CONTENT), ANYTHING)
    bucket.put(PATH, CONTENT.replace(b"0", b"O", 1))
    with caplog.at_level(logging.ERROR), pytest.raises(MediaCorruptError):
        await media.read(SHA, 0, len(CONTENT))
    assert SHA in caplog.text
    await media.put(chunks(CONTENT), ANYTHING)
    assert await media.read(SHA, 0, len(CONTENT)) == CONTENT


async def test_anybody_may_read_by_url_for_a_while(media: S3Media) -> None:
    await media.put(chunks(CONTENT), ANYTHING)
    short, long = await media.url(SHA, 1, "image/png"), await media.url(SHA, 600, "image/png")
    await asyncio.sleep(2.1)
    answer = await asyncio.to_thread(urllib3.request, "GET", long)
    assert (answer.status, answer.data, answer.headers["content-type"]) == (200, CONTENT, "image/png")
    assert (await asyncio.to_thread(urllib3.request, "GET", short)).status == 403
    with pytest.raises(MediaNotFoundError):
        await media.url(NONE, 60, "")


async def test_objects_and_marks_on_two_pages_belong_together(media: S3Media, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [bytes([number]) for number in range(1, 8)]
    stored = [(await media.put(chunks(content), ANYTHING)).sha256 for content in contents]
    await media.claim(stored)
    for page in (3, 4, 5):
        monkeypatch.setattr("services.common.s3.bucket.PAGE", page)
        monkeypatch.setattr(s3_media, "PAGE", page)
        assert [sha256 async for sha256 in media.unused_since(soon())] == sorted(stored)
        assert [sha256 async for sha256 in media.unused_since(before())] == []


async def test_objects_are_encrypted_where_that_is_asked_for(options: S3Options) -> None:
    bucket = S3Bucket(replace(options, encryption="s3"))
    try:
        bucket.put("probe", b"")
    except S3Error as error:
        pytest.skip(f"the endpoint has no keys to encrypt with: {error.code}")
    async with DeadlineExecutor("media", 4, "object store", 20) as threads:
        media = S3Media(bucket, threads, verified_share=1.0)
        for content, sha256 in ((CONTENT, SHA), (LARGE, LARGE_SHA)):
            await media.put(chunks(content, MIB), ANYTHING)
            found = bucket.client.stat_object(options.bucket, options.key(f"media/{sha256[:2]}/{sha256}"))
            assert (found.metadata or {})["x-amz-server-side-encryption"] == "AES256"
            assert await media.read(sha256, 0, len(content)) == content
    bucket.close()


def test_a_listing_tells_who_is_unused() -> None:
    now = datetime.now(UTC)
    old = now - timedelta(hours=1)
    entries = [
        ObjectInfo("media/aa/aa1", 1, old),
        ObjectInfo("media/aa/aa2", 1, old),
        ObjectInfo("media/aa/aa2.used", 0, now),
        ObjectInfo("media/aa/aa3.used", 0, old),
        ObjectInfo("media/aa/aa4", 1, now),
    ]
    assert s3_media._unused(entries, now - timedelta(minutes=1)) == ["aa1"]
