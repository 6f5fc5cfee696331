"""The vectors of items."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from services.common.errors import ServiceError, ServiceUnavailableError
from services.gateway.core.embedder import Content, Embedding, Purpose
from services.gateway.ingest.item_embedder import ItemContent, ItemEmbedder, ItemVectors
from tests.support.gateway_peers import CORRUPT, MemoryEmbedder
from tests.unit.gateway.harness import CLIP, CLIP_MODEL, IMAGE, TEXT, TEXT_MODEL, WORDS, RecordingEmbedder


class GaugingEmbedder(MemoryEmbedder):
    """Records how many inputs are in flight, and takes a while."""

    def __init__(self) -> None:
        super().__init__([CLIP_MODEL, TEXT_MODEL])
        self._in_flight = self.most_in_flight = 0
        self.largest_call = 0

    async def embed(
        self, model: str, fingerprint: str, inputs: Sequence[Content], purpose: Purpose
    ) -> list[Embedding | ServiceError]:
        self._in_flight += len(inputs)
        self.most_in_flight, self.largest_call = (
            max(self.most_in_flight, self._in_flight),
            max(self.largest_call, len(inputs)),
        )
        await asyncio.sleep(0.002)
        self._in_flight -= len(inputs)
        return await super().embed(model, fingerprint, inputs, purpose)


def make_embedder(retry_seconds: float = 5) -> tuple[ItemEmbedder, RecordingEmbedder]:
    embedder = RecordingEmbedder(MemoryEmbedder([CLIP_MODEL, TEXT_MODEL]))
    return ItemEmbedder(embedder, retry_seconds, inputs_in_flight=64), embedder


def embedded(results: Sequence[ItemVectors | ServiceError]) -> list[ItemVectors]:
    return [result for result in results if isinstance(result, ItemVectors)]


async def test_vectors_come_in_order_whatever_their_kind() -> None:
    item_embedder, _ = make_embedder()
    items = [
        ItemContent([WORDS], text="a"),
        ItemContent([CLIP], image=b"b"),
        ItemContent([WORDS, CLIP], "a", b"b"),
        ItemContent([]),
    ]
    results = embedded(await item_embedder.embed(items))
    assert [sorted(result.vectors) for result in results] == [["text"], ["clip"], ["clip", "text"], []]
    assert results[0].vectors["text"].tolist() == results[2].vectors["text"].tolist()
    assert results[1].vectors["clip"].tolist() == results[2].vectors["clip"].tolist()
    assert [result.facts is not None for result in results] == [False, True, True, False]


async def test_two_spaces_of_one_model_and_content_are_embedded_once() -> None:
    item_embedder, embedder = make_embedder()
    (result,) = embedded(await item_embedder.embed([ItemContent([CLIP, replace(CLIP, name="twin")], image=b"b")]))
    assert result.vectors["clip"] is result.vectors["twin"]
    assert embedder.embedded == [("mini", [b"b"])]


async def test_a_model_embeds_pictures_and_texts_in_calls_of_their_own() -> None:
    item_embedder, embedder = make_embedder()
    space = replace(CLIP, sources=(IMAGE, TEXT))
    await item_embedder.embed([ItemContent([space], text="a"), ItemContent([space], "ignored", b"b")])
    assert sorted(embedder.embedded, key=str) == [("mini", ["a"]), ("mini", [b"b"])]


async def test_an_item_is_refused_with_its_first_error_and_alone() -> None:
    item_embedder, _ = make_embedder()
    good, bad = await item_embedder.embed([ItemContent([CLIP], image=b"good"), ItemContent([CLIP], image=CORRUPT)])
    assert isinstance(good, ItemVectors)
    assert isinstance(bad, ServiceError)
    assert bad.reason == "MEDIA_INVALID"


async def test_a_call_that_fails_refuses_its_items_only() -> None:
    item_embedder, embedder = make_embedder(retry_seconds=0)
    embedder.errors = [ServiceUnavailableError("embedder")]
    texts, image = await item_embedder.embed([ItemContent([WORDS], text="a"), ItemContent([CLIP], image=b"b")])
    assert isinstance(texts, ServiceUnavailableError)
    assert isinstance(image, ItemVectors)


@pytest.mark.parametrize("size", [10, 300_000])
async def test_few_inputs_are_with_the_embedder_at_a_time(size: int) -> None:
    embedder = GaugingEmbedder()
    item_embedder = ItemEmbedder(embedder, 5, inputs_in_flight=64)
    images = [ItemContent([CLIP], image=bytes([number]) * size) for number in range(150)]
    results = await asyncio.gather(item_embedder.embed(images), item_embedder.embed(images))
    assert all(isinstance(each, ItemVectors) for result in results for each in result)
    assert embedder.most_in_flight <= 64
    assert embedder.largest_call <= (32 if size == 10 else 27)
