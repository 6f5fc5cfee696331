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
from services.gateway.core.items import Collection, Inline, NewItem, Stored, VectorNotAcceptedError
from services.gateway.core.store import MergeMetadata, ReplaceMetadata
from services.gateway.ingest.updater import UpdateRequest
from tests.support.gateway_peers import CORRUPT
from tests.unit.gateway.worlds import CLIP, IMAGE, NAME, OWN, TEXT, WORDS, World, world

VECTOR = np.array([1, 2], "<f4").tobytes()
BOTH = NewItem("x", text="words", media=Inline(b"picture"), metadata_json='{"a": 1, "b": 2}', vectors={"own": VECTOR})
CHANGE = UpdateRequest(NAME, "x")


async def with_item(item: NewItem = BOTH, collection: Collection | None = None) -> World:
    around = await (world(collection) if collection else world())
    await around.ingest(item)
    around.embedder.embedded.clear()
    around.embedder.inspected = 0
    return around


async def test_new_text_makes_the_text_vector_anew_and_keeps_the_rest() -> None:
    around = await with_item()
    before = dict(await around.store.vectors(NAME, "x"))
    item, version = await around.updater.update(replace(CHANGE, text="other"))
    after = await around.store.vectors(NAME, "x")
    assert around.embedder.embedded == [("words", ["other"])]
    assert after["text"].tolist() != before["text"].tolist()
    assert after["clip"] is before["clip"]
    assert after["own"] is before["own"]
    assert item.row.text == "other"
    assert item.revision == 2
    assert version == around.store.table(NAME).version


async def test_a_new_picture_makes_the_picture_vector_anew() -> None:
    around = await with_item()
    await around.updater.update(replace(CHANGE, media=Inline(b"another")))
    assert around.embedder.embedded == [("mini", [b"another"])]
    assert (await around.store.state(NAME, "x")).sha256 == hashlib.sha256(b"another").hexdigest()


async def test_a_stored_picture_can_be_the_new_one() -> None:
    around = await with_item()
    await around.ingest(NewItem("y", media=Inline(b"other")))
    await around.updater.update(replace(CHANGE, media=Stored(hashlib.sha256(b"other").hexdigest())))
    mine, others = [await around.store.vectors(NAME, item_id) for item_id in "xy"]
    assert mine["clip"].tolist() == others["clip"].tolist()


@pytest.mark.parametrize("metadata", [MergeMetadata('{"a": null, "c": 3}'), ReplaceMetadata('{"b": 2, "c": 3}')])
async def test_metadata_alone_embed_nothing(metadata: MergeMetadata | ReplaceMetadata) -> None:
    around = await with_item()
    item, _ = await around.updater.update(replace(CHANGE, metadata=metadata))
    assert json.loads(item.row.metadata_json) == {"b": 2, "c": 3}
    assert item.row.vectors.keys() == {"clip", "text", "own"}
    assert around.embedder.embedded == []


async def test_the_same_content_again_embeds_nothing() -> None:
    around = await with_item()
    await around.updater.update(replace(CHANGE, text="words", media=Inline(b"picture")))
    assert around.embedder.embedded == []
    assert around.embedder.inspected == 0
    assert (await around.store.vectors(NAME, "x")).keys() == {"clip", "text", "own"}


async def test_own_vectors_are_replaced() -> None:
    around = await with_item()
    await around.updater.update(replace(CHANGE, vectors={"own": np.array([5, 6], "<f4").tobytes()}))
    assert (await around.store.vectors(NAME, "x"))["own"].tolist() == [5, 6]


async def test_a_removed_content_takes_its_vector_along() -> None:
    around = await with_item()
    await around.updater.update(replace(CHANGE, remove_media=True))
    assert (await around.store.vectors(NAME, "x")).keys() == {"text", "own"}
    await around.updater.update(replace(CHANGE, text=""))
    assert (await around.store.vectors(NAME, "x")).keys() == {"own"}


async def test_a_space_of_several_sources_falls_back_to_the_next() -> None:
    space = replace(CLIP, sources=(IMAGE, TEXT))
    around = await with_item(replace(BOTH, vectors={}), Collection(NAME, (space,)))
    await around.updater.update(replace(CHANGE, text="other"))
    assert around.embedder.embedded == []
    await around.updater.update(replace(CHANGE, remove_media=True))
    assert around.embedder.embedded == [("mini", ["other"])]
    await around.updater.update(replace(CHANGE, media=Inline(b"new")))
    assert around.embedder.embedded[1:] == [("mini", [b"new"])]


async def test_a_space_of_text_first_reads_the_stored_picture_when_the_text_goes() -> None:
    space = replace(CLIP, sources=(TEXT, IMAGE))
    around = await with_item(replace(BOTH, vectors={}), Collection(NAME, (space,)))
    await around.updater.update(replace(CHANGE, text=""))
    assert around.embedder.embedded == [("mini", [b"picture"])]


async def test_a_picture_that_no_space_embeds_is_examined() -> None:
    around = await with_item(NewItem("x", text="words"), Collection(NAME, (WORDS,)))
    await around.updater.update(replace(CHANGE, media=Inline(b"picture")))
    assert around.embedder.inspected == 1
    assert around.embedder.embedded == []


async def test_nothing_may_be_left_of_an_item() -> None:
    around = await with_item(NewItem("x", text="words"))
    with pytest.raises(ItemEmptyError):
        await around.updater.update(replace(CHANGE, text=""))


async def test_own_vectors_are_something_left() -> None:
    around = await with_item(NewItem("x", text="words", vectors={"own": VECTOR}), Collection(NAME, (WORDS, OWN)))
    item, _ = await around.updater.update(replace(CHANGE, text=""))
    assert item.row.text is None


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        (replace(CHANGE, id="none", text="a"), ItemNotFoundError),
        (replace(CHANGE, id="none", metadata=MergeMetadata("{}")), ItemNotFoundError),
        (replace(CHANGE, text="  "), TextError),
        (replace(CHANGE, media=Inline(b"a"), remove_media=True), ArgumentError),
        (replace(CHANGE, vectors={"clip": VECTOR}), VectorNotAcceptedError),
        (replace(CHANGE, vectors={"none": VECTOR}), SpaceNotFoundError),
        (replace(CHANGE, text="a", expected_revision=7), ConflictError),
        (replace(CHANGE, metadata=MergeMetadata("{}"), expected_revision=7), ConflictError),
    ],
)
async def test_a_bad_change_changes_nothing(wish: UpdateRequest, error: type[Exception]) -> None:
    around = await with_item()
    with pytest.raises(error):
        await around.updater.update(wish)
    assert (await around.store.state(NAME, "x")).revision == 1


async def test_a_corrupt_picture_changes_nothing() -> None:
    around = await with_item()
    with pytest.raises(Exception, match="corrupt"):
        await around.updater.update(replace(CHANGE, media=Inline(CORRUPT), text="other"))
    assert (await around.store.state(NAME, "x")).text == "words"


async def test_writers_of_the_same_item_all_succeed_where_none_expects_a_revision() -> None:
    around = await with_item()
    wishes = [replace(CHANGE, text=f"text {number}") for number in range(4)]
    await asyncio.gather(*(around.updater.update(wish) for wish in wishes))
    assert (await around.store.state(NAME, "x")).revision == 5


async def test_a_writer_that_expects_a_revision_fails_when_another_was_first() -> None:
    around = await with_item()
    wishes = [replace(CHANGE, text=f"text {number}", expected_revision=1) for number in range(3)]
    outcomes = await asyncio.gather(*(around.updater.update(wish) for wish in wishes), return_exceptions=True)
    assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 2


def test_a_change_of_metadata_touches_no_content() -> None:
    assert not replace(CHANGE, metadata=MergeMetadata("{}"), vectors={"own": VECTOR}).touches_content
