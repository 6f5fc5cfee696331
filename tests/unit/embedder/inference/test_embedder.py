"""What the embedder does with good and bad inputs, by encoders that need no weights."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest

from services.common.concurrency.executors import BoundedExecutor
from services.common.concurrency.limiter import ConcurrencyLimiter
from services.common.errors import ArgumentError, FingerprintError, OverloadedError, ServiceError
from services.common.vectors import Matrix
from services.embedder.adapters.memory import MemoryRuntime
from services.embedder.core.catalog import ModelCatalog, Prefixes, Purpose
from services.embedder.core.encoder import TextEncoder
from services.embedder.core.errors import ModelNotFoundError
from services.embedder.inference.embedder import Embedder, Embedding, EmbedResults, Encoders, Input, Outcome
from services.embedder.inference.projection import ProjectedTextEncoder
from services.embedder.media.images import ImageLimits, ImageReader
from tests.unit.embedder.core.test_catalog import BOTH, TRUNK, picture, tower
from tests.unit.embedder.encoders import HeldTextEncoder, settle
from tests.unit.embedder.files import BLUE, plain

CATALOGUE = ModelCatalog([TRUNK, BOTH], "memory")


def make(executor: BoundedExecutor, trunk: TextEncoder, *, max_waiting: int = 1000) -> Embedder:
    runtime = MemoryRuntime()
    assert BOTH.text is not None
    head = ProjectedTextEncoder(trunk, runtime.projection_encoder(BOTH.text))  # type: ignore[arg-type]  # it is a head
    towers = {"trunk": Encoders(trunk, None), "both": Encoders(head, runtime.image_encoder(picture()))}
    pictures = ImageReader(executor, ImageLimits(max_bytes=2**20, max_pixels=10_000))
    return Embedder(CATALOGUE, towers, pictures, ConcurrencyLimiter("embedder", max_waiting))


@pytest.fixture
async def executor() -> AsyncIterator[BoundedExecutor]:
    async with BoundedExecutor("embedder", 2) as executor:
        yield executor


@pytest.fixture
def embedder(executor: BoundedExecutor) -> Embedder:
    return make(executor, MemoryRuntime().text_encoder(tower()))


async def outcomes(embedder: Embedder, *inputs: Input, model: str = "both") -> list[Outcome]:
    return (await embedder.embed(model, "", inputs)).outcomes


def vector(outcome: Outcome) -> Matrix:
    assert isinstance(outcome, Embedding), outcome
    return outcome.vector


def reason(outcome: Outcome) -> tuple[str, dict[str, str]]:
    assert isinstance(outcome, ServiceError)
    return outcome.reason, outcome.metadata


async def test_texts_and_pictures_go_into_one_space(embedder: Embedder) -> None:
    text, red, blue = await outcomes(embedder, "a shoe", plain(), plain(colour=BLUE))
    for each in (text, red, blue):
        assert vector(each).shape == (3,)
        assert np.linalg.norm(vector(each)) == pytest.approx(1)
    assert isinstance(red, Embedding)
    assert red.media is not None
    assert (red.media.mime_type, red.media.width) == ("image/png", 8)
    assert isinstance(text, Embedding)
    assert text.media is None


async def test_bad_inputs_are_refused_one_by_one_in_their_places(embedder: Embedder) -> None:
    good, alone = "a shoe", vector((await outcomes(embedder, "a shoe"))[0])
    found = await outcomes(
        embedder, "", good, b"", None, plain(), " \n\t\u3000", plain((101, 100)), "x" * 100_001, good
    )
    assert [reason(found[place])[0] for place in (0, 2, 3, 5, 6, 7)] == [
        "TEXT_INVALID",
        "MEDIA_INVALID",
        "ARGUMENT_INVALID",
        "TEXT_INVALID",
        "MEDIA_TOO_LARGE",
        "TEXT_INVALID",
    ]
    assert reason(found[0])[1] == {"problem": "is empty"}
    assert reason(found[5])[1] == {"problem": "is only white space"}
    assert reason(found[6])[1] == {"pixels": "10100", "limit": "10000"}
    assert reason(found[7])[1] == {"problem": "has 100001 characters, 100000 at most"}
    assert np.array_equal(vector(found[1]), alone)
    assert np.array_equal(vector(found[8]), alone)
    assert isinstance(found[4], Embedding)


async def test_only_bad_inputs_are_an_answer_too(embedder: Embedder) -> None:
    assert [reason(each)[0] for each in await outcomes(embedder, "", b"")] == ["TEXT_INVALID", "MEDIA_INVALID"]


@pytest.mark.parametrize("text", ["a" + chr(0xD800), chr(0xDFFF)])
async def test_half_a_character_is_refused(embedder: Embedder, text: str) -> None:
    (outcome,) = await outcomes(embedder, text)
    assert reason(outcome)[0] == "TEXT_INVALID"


@pytest.mark.parametrize("text", ["\0", "\u200b", "👟", "!?", "x" * 100_000, "\u0301", "\U0010ffff"])
async def test_odd_texts_have_a_vector(embedder: Embedder, text: str) -> None:
    (outcome,) = await outcomes(embedder, text)
    assert np.linalg.norm(vector(outcome)) == pytest.approx(1)


async def test_a_model_without_the_tower_refuses_the_input(embedder: Embedder) -> None:
    text, image = await outcomes(embedder, "a shoe", plain(), model="trunk")
    assert isinstance(text, Embedding)
    assert reason(image) == ("INPUT_NOT_SUPPORTED", {"model": "trunk", "content_type": "image"})


async def test_an_unknown_model_is_refused(embedder: Embedder) -> None:
    with pytest.raises(ModelNotFoundError):
        await embedder.embed("clip", "", ["a"])


async def test_the_fingerprint_must_be_the_models(embedder: Embedder) -> None:
    mine = CATALOGUE.fingerprint("both")
    answer = await embedder.embed("both", mine, ["a"])
    assert isinstance(answer, EmbedResults)
    assert answer.fingerprint == mine
    with pytest.raises(FingerprintError) as caught:
        await embedder.embed("both", CATALOGUE.fingerprint("trunk"), ["a"])
    assert caught.value.metadata == {"expected": CATALOGUE.fingerprint("trunk"), "actual": mine}


@pytest.mark.parametrize("count", [0, 257])
async def test_a_batch_has_1_to_256_inputs(embedder: Embedder, count: int) -> None:
    with pytest.raises(ArgumentError, match=f"inputs {count}: must be 1 to 256"):
        await embedder.embed("both", "", ["a"] * count)
    assert len(await outcomes(embedder, *["a"] * 256)) == 256


async def test_a_full_queue_refuses_at_once_and_recovers(executor: BoundedExecutor) -> None:
    held = HeldTextEncoder()
    embedder = make(executor, held, max_waiting=3)
    task = asyncio.create_task(embedder.embed("trunk", "", ["a", "b"]))
    await settle()
    with pytest.raises(OverloadedError):
        await embedder.embed("trunk", "", ["c", "d"])
    held.gate.set()
    await task
    await embedder.embed("trunk", "", ["c", "d"])


async def test_a_cancelled_call_gives_its_place_back(executor: BoundedExecutor) -> None:
    held = HeldTextEncoder()
    embedder = make(executor, held, max_waiting=1)
    task = asyncio.create_task(embedder.embed("trunk", "", ["a"]))
    await settle()
    task.cancel()
    await settle()
    held.gate.set()
    await embedder.embed("trunk", "", ["b"])


async def test_only_good_texts_reach_the_encoder(executor: BoundedExecutor) -> None:
    held = HeldTextEncoder()
    held.gate.set()
    await outcomes(make(executor, held), "", "good", " ", model="trunk")
    assert held.given == [["good"]]


async def test_an_encoders_error_is_the_calls(executor: BoundedExecutor) -> None:
    held = HeldTextEncoder()
    held.error = OverloadedError("busy")
    held.gate.set()
    with pytest.raises(OverloadedError, match="busy"):
        await outcomes(make(executor, held), "a", model="trunk")


@pytest.mark.parametrize(
    ("purpose", "seen"), [(None, "shoe"), (Purpose.QUERY, "query: shoe"), (Purpose.DOCUMENT, "passage: shoe")]
)
async def test_a_text_is_seen_with_the_prefix_of_its_purpose(
    executor: BoundedExecutor, purpose: Purpose | None, seen: str
) -> None:
    trunk = HeldTextEncoder()
    trunk.gate.set()
    prefixed = replace(TRUNK, text=replace(tower(), prefixes=Prefixes("query: ", "passage: ")))
    pictures = ImageReader(executor, ImageLimits(1, 1))
    embedder = Embedder(
        ModelCatalog([prefixed], "memory"), {"trunk": Encoders(trunk, None)}, pictures, ConcurrencyLimiter("e", 9)
    )
    await embedder.embed("trunk", "", ["shoe"], purpose)
    assert trunk.given == [[seen]]
