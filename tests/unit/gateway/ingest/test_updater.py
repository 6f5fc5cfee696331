"""Changing one item."""

import asyncio
import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from services.common.errors import (
    ArgumentError,
    ConflictError,
    ItemEmptyError,
    ItemNotFoundError,
    SpaceNotFoundError,
    TextError,
)
from services.gateway.core.items import Collection, InlineMedia, NewItem, StoredMedia, VectorNotAcceptedError
from services.gateway.core.store import MergeMetadata, ReplaceMetadata
from services.gateway.ingest.updater import UpdateRequest
from tests.support.gateway_peers import CORRUPT
from tests.unit.gateway.harness import CLIP, IMAGE, NAME, OWN, TEXT, WORDS, Harness, make_harness

VECTOR = np.array([1, 2], "<f4").tobytes()
BOTH = NewItem(
    "x", text="words", media=InlineMedia(b"picture"), metadata_json='{"a": 1, "b": 2}', vectors={"own": VECTOR}
)
CHANGE = UpdateRequest(NAME, "x")


async def make_harness_with(item: NewItem = BOTH, collection: Collection | None = None) -> Harness:
    harness = await (make_harness(collection) if collection else make_harness())
    await harness.ingest(item)
    harness.embedder.embedded.clear()
    harness.embedder.inspected = 0
    return harness


async def test_new_text_makes_a_new_text_vector_and_keeps_the_rest() -> None:
    harness = await make_harness_with()
    before = dict(await harness.store.get_vectors(NAME, "x"))
    item, version = await harness.updater.update(replace(CHANGE, text="other"))
    after = await harness.store.get_vectors(NAME, "x")
    assert harness.embedder.embedded == [("words", ["other"])]
    assert after["text"].tolist() != before["text"].tolist()
    assert after["clip"] is before["clip"]
    assert after["own"] is before["own"]
    assert item.row.text == "other"
    assert item.revision == 2
    assert version == harness.store.table(NAME).version


async def test_a_new_picture_makes_a_new_image_vector() -> None:
    harness = await make_harness_with()
    await harness.updater.update(replace(CHANGE, media=InlineMedia(b"another")))
    assert harness.embedder.embedded == [("mini", [b"another"])]
    assert (await harness.store.get_state(NAME, "x")).sha256 == hashlib.sha256(b"another").hexdigest()


async def test_a_stored_picture_can_be_the_new_one() -> None:
    harness = await make_harness_with()
    await harness.ingest(NewItem("y", media=InlineMedia(b"other")))
    await harness.updater.update(replace(CHANGE, media=StoredMedia(hashlib.sha256(b"other").hexdigest())))
    mine, others = [await harness.store.get_vectors(NAME, item_id) for item_id in "xy"]
    assert mine["clip"].tolist() == others["clip"].tolist()


@pytest.mark.parametrize("metadata", [MergeMetadata('{"a": null, "c": 3}'), ReplaceMetadata('{"b": 2, "c": 3}')])
async def test_metadata_alone_embed_nothing(metadata: MergeMetadata | ReplaceMetadata) -> None:
    harness = await make_harness_with()
    item, _ = await harness.updater.update(replace(CHANGE, metadata=metadata))
    assert json.loads(item.row.metadata_json) == {"b": 2, "c": 3}
    assert item.row.vectors.keys() == {"clip", "text", "own"}
    assert harness.embedder.embedded == []


async def test_the_same_content_again_embeds_nothing() -> None:
    harness = await make_harness_with()
    await harness.updater.update(replace(CHANGE, text="words", media=InlineMedia(b"picture")))
    assert harness.embedder.embedded == []
    assert harness.embedder.inspected == 0
    assert (await harness.store.get_vectors(NAME, "x")).keys() == {"clip", "text", "own"}


async def test_own_vectors_are_replaced() -> None:
    harness = await make_harness_with()
    await harness.updater.update(replace(CHANGE, vectors={"own": np.array([5, 6], "<f4").tobytes()}))
    assert (await harness.store.get_vectors(NAME, "x"))["own"].tolist() == [5, 6]


async def test_removed_content_removes_its_vector() -> None:
    harness = await make_harness_with()
    await harness.updater.update(replace(CHANGE, remove_media=True))
    assert (await harness.store.get_vectors(NAME, "x")).keys() == {"text", "own"}
    await harness.updater.update(replace(CHANGE, text=""))
    assert (await harness.store.get_vectors(NAME, "x")).keys() == {"own"}


async def test_a_space_of_several_sources_falls_back_to_the_next() -> None:
    space = replace(CLIP, sources=(IMAGE, TEXT))
    harness = await make_harness_with(replace(BOTH, vectors={}), Collection(NAME, (space,)))
    await harness.updater.update(replace(CHANGE, text="other"))
    assert harness.embedder.embedded == []
    await harness.updater.update(replace(CHANGE, remove_media=True))
    assert harness.embedder.embedded == [("mini", ["other"])]
    await harness.updater.update(replace(CHANGE, media=InlineMedia(b"new")))
    assert harness.embedder.embedded[1:] == [("mini", [b"new"])]


async def test_a_space_of_text_first_reads_the_stored_picture_when_the_text_goes() -> None:
    space = replace(CLIP, sources=(TEXT, IMAGE))
    harness = await make_harness_with(replace(BOTH, vectors={}), Collection(NAME, (space,)))
    await harness.updater.update(replace(CHANGE, text=""))
    assert harness.embedder.embedded == [("mini", [b"picture"])]


async def test_a_picture_that_no_space_embeds_is_inspected() -> None:
    harness = await make_harness_with(NewItem("x", text="words"), Collection(NAME, (WORDS,)))
    await harness.updater.update(replace(CHANGE, media=InlineMedia(b"picture")))
    assert harness.embedder.inspected == 1
    assert harness.embedder.embedded == []


async def test_an_item_must_not_become_empty() -> None:
    harness = await make_harness_with(NewItem("x", text="words"))
    with pytest.raises(ItemEmptyError):
        await harness.updater.update(replace(CHANGE, text=""))


async def test_own_vectors_keep_an_item() -> None:
    harness = await make_harness_with(
        NewItem("x", text="words", vectors={"own": VECTOR}), Collection(NAME, (WORDS, OWN))
    )
    item, _ = await harness.updater.update(replace(CHANGE, text=""))
    assert item.row.text is None


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (replace(CHANGE, id="none", text="a"), ItemNotFoundError),
        (replace(CHANGE, id="none", metadata=MergeMetadata("{}")), ItemNotFoundError),
        (replace(CHANGE, text="  "), TextError),
        (replace(CHANGE, media=InlineMedia(b"a"), remove_media=True), ArgumentError),
        (replace(CHANGE, vectors={"clip": VECTOR}), VectorNotAcceptedError),
        (replace(CHANGE, vectors={"none": VECTOR}), SpaceNotFoundError),
        (replace(CHANGE, text="a", expected_revision=7), ConflictError),
        (replace(CHANGE, metadata=MergeMetadata("{}"), expected_revision=7), ConflictError),
    ],
)
async def test_a_bad_change_changes_nothing(change: UpdateRequest, error: type[Exception]) -> None:
    harness = await make_harness_with()
    with pytest.raises(error):
        await harness.updater.update(change)
    assert (await harness.store.get_state(NAME, "x")).revision == 1


async def test_a_corrupt_picture_changes_nothing() -> None:
    harness = await make_harness_with()
    with pytest.raises(Exception, match="corrupt"):
        await harness.updater.update(replace(CHANGE, media=InlineMedia(CORRUPT), text="other"))
    assert (await harness.store.get_state(NAME, "x")).text == "words"


async def test_writers_of_the_same_item_all_succeed_where_none_expects_a_revision() -> None:
    harness = await make_harness_with()
    requests = [replace(CHANGE, text=f"text {number}") for number in range(4)]
    await asyncio.gather(*(harness.updater.update(each) for each in requests))
    assert (await harness.store.get_state(NAME, "x")).revision == 5


async def test_a_writer_that_expects_a_revision_fails_when_another_was_first() -> None:
    harness = await make_harness_with()
    requests = [replace(CHANGE, text=f"text {number}", expected_revision=1) for number in range(3)]
    outcomes = await asyncio.gather(*(harness.updater.update(each) for each in requests), return_exceptions=True)
    assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 2


def test_a_change_of_metadata_changes_no_content() -> None:
    assert not replace(CHANGE, metadata=MergeMetadata("{}"), vectors={"own": VECTOR}).changes_content
