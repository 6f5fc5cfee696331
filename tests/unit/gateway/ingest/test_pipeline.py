"""Ingest: batches, answers in order, and what happens when something fails."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from services.common.concurrency.limiter import ConcurrencyLimiter
from services.common.errors import (
    ArgumentError,
    CollectionNotFoundError,
    OverloadedError,
    ServiceError,
    ServiceUnavailableError,
)
from services.gateway.core.items import Collection, InlineMedia, NewItem, StoredMedia
from services.gateway.core.store import Row, WrittenRow
from services.gateway.ingest.batcher import BatchLimits
from services.gateway.ingest.item_embedder import ItemEmbedder
from services.gateway.ingest.pipeline import IngestLimits, IngestPipeline, IngestResult
from tests.support.gateway_peers import CORRUPT, MemoryStore
from tests.unit.gateway.harness import (
    CLIP,
    COLLECTION,
    LIMITS,
    NAME,
    OWN,
    Harness,
    make_harness,
    reasons,
    stream,
    with_limits,
)
from tests.waiting import HANG_SECONDS

VECTOR = np.array([1, 2], "<f4").tobytes()


def text(item_id: str, words: str = "words") -> NewItem:
    return NewItem(item_id, text=words)


def picture(item_id: str, data: bytes = b"picture") -> NewItem:
    return NewItem(item_id, media=InlineMedia(data))


class RecordingStore:
    """Records the batches it writes, waits for `gate`, and raises `errors` first, one a call."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.batches: list[list[str]] = []
        self.errors: list[ServiceError] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def upsert(
        self, collection: str, rows: Sequence[Row], fingerprints: Mapping[str, str]
    ) -> list[WrittenRow | ServiceError]:
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        self.batches.append([row.id for row in rows])
        return await self._store.upsert(collection, rows, fingerprints)

    async def read_media(self, sha256: str, max_bytes: int) -> bytes:
        return await self._store.read_media(sha256, max_bytes)


def make_recorded(harness: Harness, limits: IngestLimits = LIMITS) -> tuple[IngestPipeline, RecordingStore]:
    store, limiter = RecordingStore(harness.store), ConcurrencyLimiter("ingests", 2)
    pipeline = IngestPipeline(
        harness.cache, ItemEmbedder(harness.embedder, 5, inputs_in_flight=64), store, limits, limiter
    )
    return pipeline, store


async def one_by_one(
    pipeline: IngestPipeline, name: str, items: AsyncIterator[NewItem]
) -> AsyncGenerator[IngestResult]:
    async with aclosing(pipeline.ingest(name, items)) as batches:
        async for results in batches:
            for result in results:
                yield result


async def test_every_item_is_answered_in_order() -> None:
    harness = await make_harness()
    items = [text("a"), picture("b"), NewItem("c", vectors={"own": VECTOR}), NewItem("d"), text("", "x"), text("f")]
    answers = await harness.ingest(*items)
    assert [answer.sequence for answer in answers] == [0, 1, 2, 3, 4, 5]
    assert [answer.id for answer in answers] == ["a", "b", "c", "d", "", "f"]
    assert reasons(answers) == ["written", "written", "written", "ITEM_EMPTY", "ID_INVALID", "written"]


async def test_vectors_come_from_the_first_source_that_an_item_has() -> None:
    harness = await make_harness()
    await harness.ingest(
        NewItem("both", text="words", media=InlineMedia(b"picture"), vectors={"own": VECTOR}), text("t")
    )
    assert (await harness.store.get_vectors(NAME, "both")).keys() == {"clip", "text", "own"}
    assert (await harness.store.get_vectors(NAME, "t")).keys() == {"text"}


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (NewItem("a\0b", text="x"), "ID_INVALID"),
        (NewItem("x" * 1025, text="x"), "ID_INVALID"),
        (NewItem("a", text=""), "TEXT_INVALID"),
        (NewItem("a", text=" \n\t"), "TEXT_INVALID"),
        (NewItem("a", text="x" * 100_001), "TEXT_INVALID"),
        (NewItem("a", media=InlineMedia(CORRUPT)), "MEDIA_INVALID"),
        (NewItem("a", media=StoredMedia("0" * 64)), "MEDIA_NOT_FOUND"),
        (NewItem("a", text="x", metadata_json="[1]"), "METADATA_INVALID"),
        (NewItem("a", text="x", metadata_json="{"), "METADATA_INVALID"),
        (NewItem("a", vectors={"none": VECTOR}), "SPACE_NOT_FOUND"),
        (NewItem("a", vectors={"clip": VECTOR}), "VECTOR_NOT_ACCEPTED"),
        (NewItem("a", vectors={"own": VECTOR[:4]}), "DIMENSION_MISMATCH"),
        (NewItem("a", vectors={"own": VECTOR[:7]}), "VECTOR_INVALID"),
        (NewItem("a", vectors={"own": np.array([1, np.nan], "<f4").tobytes()}), "VECTOR_INVALID"),
    ],
)
async def test_a_bad_item_is_refused_and_the_others_go_on(item: NewItem, reason: str) -> None:
    harness = await make_harness()
    assert reasons(await harness.ingest(text("before"), item, text("after"))) == ["written", reason, "written"]
    assert (await harness.store.get_items(NAME, [item.id], [])) == [None]


async def test_a_later_item_of_the_same_id_replaces_the_earlier() -> None:
    harness = await make_harness()
    answers = await harness.ingest(*[text("same", f"words {number}") for number in range(9)])
    assert [cast(WrittenRow, answer.outcome).revision for answer in answers] == list(range(1, 10))
    assert (await harness.store.get_state(NAME, "same")).text == "words 8"


async def test_a_batch_is_one_commit_and_one_call_to_each_model() -> None:
    harness = await make_harness()
    pipeline, store = make_recorded(harness)
    items = [text("a", "A"), picture("b", b"B"), text("c", "C"), picture("d", b"D")]
    _ = [answer async for answer in one_by_one(pipeline, NAME, stream(items))]
    assert store.batches == [["a", "b", "c", "d"]]
    assert sorted(harness.embedder.embedded) == [("mini", [b"B", b"D"]), ("words", ["A", "C"])]


async def test_a_slow_producer_gets_its_answers_promptly() -> None:
    harness = await make_harness(limits=with_limits(batch=BatchLimits(items=100, bytes=1000, seconds=0.01)))
    go_on = asyncio.Event()

    async def slowly() -> AsyncIterator[NewItem]:
        yield text("a")
        await go_on.wait()
        yield text("b")

    answers = one_by_one(harness.ingest_pipeline, NAME, slowly())
    first = await asyncio.wait_for(anext(aiter(answers)), HANG_SECONDS)
    assert first.id == "a"
    go_on.set()
    assert [answer.id async for answer in answers] == ["b"]


async def test_nothing_is_read_while_too_much_is_in_flight() -> None:
    harness = await make_harness()
    pipeline, store = make_recorded(harness, with_limits(items=10))
    store.gate.clear()
    read = []

    async def counted() -> AsyncIterator[NewItem]:
        for number in range(50):
            read.append(number)
            yield text(f"item{number}")

    answers = one_by_one(pipeline, NAME, counted())
    waiting = asyncio.ensure_future(anext(aiter(answers)))
    await asyncio.sleep(0.1)
    assert len(read) == 11  # one more waits for room
    store.gate.set()
    await waiting
    assert len([answer async for answer in answers]) == 49


async def test_bytes_in_flight_are_bounded() -> None:
    harness = await make_harness()
    pipeline, store = make_recorded(harness, with_limits(bytes=1000))
    store.gate.clear()
    read = []

    async def counted() -> AsyncIterator[NewItem]:
        for number in range(20):
            read.append(number)
            yield picture(f"item{number}", bytes([number]) * 300)

    answers = one_by_one(pipeline, NAME, counted())
    waiting = asyncio.ensure_future(anext(aiter(answers)))
    await asyncio.sleep(0.1)
    assert len(read) == 4
    store.gate.set()
    await waiting
    assert len([answer async for answer in answers]) == 19


async def test_a_reader_that_takes_no_answers_stops_the_reading() -> None:
    harness = await make_harness(limits=with_limits(items=10))
    read = []

    async def counted() -> AsyncIterator[NewItem]:
        for number in range(50):
            read.append(number)
            yield text(f"item{number}")

    answers = one_by_one(harness.ingest_pipeline, NAME, counted())
    await anext(aiter(answers))
    await asyncio.sleep(0.1)
    assert len(read) <= 11
    assert len([answer async for answer in answers]) == 49


@pytest.mark.parametrize(
    "error", [ServiceUnavailableError("embedder"), OverloadedError("full", queue="inputs", limit="1")]
)
async def test_an_embedder_that_is_unavailable_or_overloaded_is_retried(error: ServiceError) -> None:
    harness = await make_harness()
    harness.embedder.errors = [error, error]
    assert reasons(await harness.ingest(text("a"), text("b"))) == ["written", "written"]


async def test_an_unavailable_store_is_retried() -> None:
    harness = await make_harness()
    pipeline, store = make_recorded(harness)
    store.errors = [ServiceUnavailableError("store")] * 2
    assert reasons([answer async for answer in one_by_one(pipeline, NAME, stream([text("a")]))]) == ["written"]


async def test_a_batch_that_cannot_be_committed_gets_the_error_and_the_stream_goes_on() -> None:
    harness = await make_harness()
    pipeline, store = make_recorded(harness)
    store.errors = [CollectionNotFoundError(NAME)]
    answers = [answer async for answer in one_by_one(pipeline, NAME, stream([text(f"item{n}") for n in range(6)]))]
    assert reasons(answers) == ["COLLECTION_NOT_FOUND"] * 4 + ["written"] * 2


async def test_an_outdated_fingerprint_is_answered_item_by_item() -> None:
    stale = replace(CLIP, fingerprint="mini/0")
    harness = await make_harness(Collection(NAME, (stale, *COLLECTION.spaces[1:])))
    assert reasons(await harness.ingest(picture("a"), text("b"))) == ["FINGERPRINT_MISMATCH", "written"]


async def test_pictures_that_no_space_embeds_are_inspected() -> None:
    harness = await make_harness(Collection(NAME, (OWN,)))
    answers = await harness.ingest(picture("a"), picture("b", CORRUPT))
    assert reasons(answers) == ["written", "MEDIA_INVALID"]
    assert harness.embedder.embedded == []


async def test_stored_media_are_read_to_be_embedded() -> None:
    harness = await make_harness()
    await harness.ingest(picture("a", b"pixels"))
    by_hash = NewItem("b", media=StoredMedia(hashlib.sha256(b"pixels").hexdigest()))
    assert reasons(await harness.ingest(by_hash)) == ["written"]
    first, second = [await harness.store.get_vectors(NAME, item_id) for item_id in "ab"]
    assert first["clip"].tolist() == second["clip"].tolist()


async def test_an_unknown_collection_fails_the_call() -> None:
    harness = await make_harness()
    with pytest.raises(CollectionNotFoundError):
        await anext(aiter(one_by_one(harness.ingest_pipeline, "collections/none", stream([text("a")]))))


async def test_a_broken_stream_fails_after_what_came_before_is_answered() -> None:
    harness = await make_harness()

    async def broken() -> AsyncIterator[NewItem]:
        yield text("a")
        raise ArgumentError("part", None, "must be an item")

    answers = one_by_one(harness.ingest_pipeline, NAME, broken())
    assert (await anext(aiter(answers))).id == "a"
    with pytest.raises(ArgumentError):
        await anext(aiter(answers))


async def test_one_ingest_too_many_is_refused() -> None:
    harness = await make_harness(max_ingests=1)

    async def endless() -> AsyncIterator[NewItem]:
        yield text("a")
        await asyncio.Event().wait()

    first = one_by_one(harness.ingest_pipeline, NAME, endless())
    await anext(aiter(first))
    with pytest.raises(OverloadedError):
        await harness.ingest(text("b"))
    await first.aclose()
    assert reasons(await harness.ingest(text("b"))) == ["written"]


async def test_the_definition_is_read_again_for_each_stream() -> None:
    harness = await make_harness()
    await harness.ingest(text("a"))
    await harness.store.drop(NAME)
    await harness.store.create_collection(Collection(NAME, (OWN,)), {})
    assert reasons(await harness.ingest(NewItem("b", vectors={"own": VECTOR}))) == ["written"]
