"""The vectors of items."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from services.common.errors import ServiceError, ServiceUnavailableError
from services.gateway.core.embedder import Content, Embedded, Purpose
from services.gateway.ingest.item_encoder import Encoded, ItemContent, ItemEmbedder
from tests.support.gateway_peers import CORRUPT, MemoryEmbedder
from tests.unit.gateway.worlds import CLIP, CLIP_MODEL, IMAGE, TEXT, TEXT_MODEL, WORDS, CountingEmbedder


class Watched(MemoryEmbedder):
    """Remembers how many inputs it had at a time, and takes a while."""

    def __init__(self) -> None:
        super().__init__([CLIP_MODEL, TEXT_MODEL])
        self.now = self.most = 0
        self.largest = 0

    async def embed(
        self, model: str, fingerprint: str, inputs: Sequence[Content], purpose: Purpose
    ) -> list[Embedded | ServiceError]:
        self.now += len(inputs)
        self.most, self.largest = max(self.most, self.now), max(self.largest, len(inputs))
        await asyncio.sleep(0.002)
        self.now -= len(inputs)
        return await super().embed(model, fingerprint, inputs, purpose)


def encoder(retry_seconds: float = 5) -> tuple[ItemEmbedder, CountingEmbedder]:
    embedder = CountingEmbedder(MemoryEmbedder([CLIP_MODEL, TEXT_MODEL]))
    return ItemEmbedder(embedder, retry_seconds, inputs_in_flight=64), embedder


def encoded(results: Sequence[Encoded | ServiceError]) -> list[Encoded]:
    return [result for result in results if isinstance(result, Encoded)]


async def test_vectors_come_in_order_whatever_their_kind() -> None:
    encode, _ = encoder()
    items = [
        ItemContent([WORDS], text="a"),
        ItemContent([CLIP], picture=b"b"),
        ItemContent([WORDS, CLIP], "a", b"b"),
        ItemContent([]),
    ]
    results = encoded(await encode.encode(items))
    assert [sorted(result.vectors) for result in results] == [["text"], ["clip"], ["clip", "text"], []]
    assert results[0].vectors["text"].tolist() == results[2].vectors["text"].tolist()
    assert results[1].vectors["clip"].tolist() == results[2].vectors["clip"].tolist()
    assert [result.facts is not None for result in results] == [False, True, True, False]


async def test_two_spaces_of_one_model_and_content_are_embedded_once() -> None:
    encode, embedder = encoder()
    (result,) = encoded(await encode.encode([ItemContent([CLIP, replace(CLIP, name="twin")], picture=b"b")]))
    assert result.vectors["clip"] is result.vectors["twin"]
    assert embedder.embedded == [("mini", [b"b"])]


async def test_a_model_embeds_pictures_and_texts_in_calls_of_their_own() -> None:
    encode, embedder = encoder()
    space = replace(CLIP, sources=(IMAGE, TEXT))
    await encode.encode([ItemContent([space], text="a"), ItemContent([space], "ignored", b"b")])
    assert sorted(embedder.embedded, key=str) == [("mini", ["a"]), ("mini", [b"b"])]


async def test_an_item_is_refused_with_its_first_error_and_alone() -> None:
    encode, _ = encoder()
    good, bad = await encode.encode([ItemContent([CLIP], picture=b"good"), ItemContent([CLIP], picture=CORRUPT)])
    assert isinstance(good, Encoded)
    assert isinstance(bad, ServiceError)
    assert bad.reason == "MEDIA_INVALID"


async def test_a_call_that_fails_refuses_its_items_only() -> None:
    encode, embedder = encoder(retry_seconds=0)
    embedder.errors = [ServiceUnavailableError("embedder")]
    texts, picture = await encode.encode([ItemContent([WORDS], text="a"), ItemContent([CLIP], picture=b"b")])
    assert isinstance(texts, ServiceUnavailableError)
    assert isinstance(picture, Encoded)


@pytest.mark.parametrize("size", [10, 300_000])
async def test_few_inputs_are_with_the_embedder_at_a_time(size: int) -> None:
    embedder = Watched()
    encode = ItemEmbedder(embedder, 5, inputs_in_flight=64)
    pictures = [ItemContent([CLIP], picture=bytes([number]) * size) for number in range(150)]
    results = await asyncio.gather(encode.encode(pictures), encode.encode(pictures))
    assert all(isinstance(each, Encoded) for result in results for each in result)
    assert embedder.most <= 64
    assert embedder.largest <= (32 if size == 10 else 27)
