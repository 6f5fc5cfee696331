"""The embedder over a real port, with the built-in models and without weights, and by direct call."""

import asyncio
import hashlib
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from medley.v1 import collection_pb2, item_pb2, vector_pb2
from medley.v1 import embedder_service_pb2 as pb
from medley.v1 import embedder_service_pb2_grpc as pb_grpc
from services.common.errors import DeadlineError, NotFoundError, OverloadedError
from services.common.rpc.client import InProcessStub, call
from services.common.rpc.server import run_server
from services.embedder.media import images
from services.embedder.servicer import EmbedderServicer
from services.embedder.settings import BUILT_IN_MODELS, EmbedderSettings
from services.embedder.wiring import embedder_servicer
from tests.unit.embedder.files import encoded, exif, halves, noise, plain
from tests.waiting import HANG_SECONDS, until_works

MODELS = ["medley-mini", "minilm"]
Stub = Any


def settings(**changes: Any) -> EmbedderSettings:
    whole: dict[str, Any] = {"listen": "127.0.0.1:0", "drain_seconds": 0, "threads": 2, "max_pixels": 1_000_000}
    return EmbedderSettings(**{**whole, **changes})


@pytest.fixture(params=["onnx", "memory"])
async def servicer(request: pytest.FixtureRequest) -> AsyncIterator[EmbedderServicer]:
    async with embedder_servicer(settings(runtime=request.param)) as servicer:
        yield servicer


@pytest.fixture
async def stub(servicer: EmbedderServicer) -> AsyncIterator[Stub]:
    register = partial(pb_grpc.add_EmbedderServiceServicer_to_server, servicer)
    async with (
        run_server(settings(), "medley.v1.EmbedderService", register) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield pb_grpc.EmbedderServiceStub(channel)


def request(model: str, *contents: str | bytes, fingerprint: str = "") -> pb.EmbedRequest:
    inputs = [pb.EmbedInput(text=each) if isinstance(each, str) else pb.EmbedInput(image=each) for each in contents]
    return pb.EmbedRequest(model=model, fingerprint=fingerprint, inputs=inputs)


async def embed(stub: Stub, model: str, *contents: str | bytes) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    answer = await stub.Embed(request(model, *contents))
    return [np.frombuffer(result.embedding.vector.float32_le, "<f4") for result in answer.results]


def info(status: status_pb2.Status) -> tuple[int, str, dict[str, str]]:
    """Code, reason and metadata."""
    (detail,) = status.details
    unpacked = error_details_pb2.ErrorInfo()
    assert detail.Unpack(unpacked)
    assert unpacked.domain == "medley"
    return status.code, unpacked.reason, dict(unpacked.metadata)


async def refusal(call: Any) -> tuple[int, str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return info(rpc_status.from_call(caught.value))  # type: ignore[arg-type]  # takes what an aio error has as well


def code(status: grpc.StatusCode) -> int:
    number: int = status.value[0]
    return number


NOT_FOUND, INVALID, PRECONDITION, EXHAUSTED = map(
    code,
    (
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ),
)


async def test_the_catalogue(stub: Stub) -> None:
    listed = await stub.ListModels(pb.ListModelsRequest())
    assert [model.name for model in listed.models] == MODELS
    assert listed.next_page_token == ""
    mini, minilm = listed.models
    assert (mini.dimensions, minilm.dimensions) == (256, 384)
    assert mini.metric == vector_pb2.METRIC_COSINE
    assert list(mini.inputs) == [collection_pb2.CONTENT_TYPE_TEXT, collection_pb2.CONTENT_TYPE_IMAGE]
    assert list(minilm.inputs) == [collection_pb2.CONTENT_TYPE_TEXT]
    assert mini.fingerprint != minilm.fingerprint
    assert len(mini.fingerprint) == 32
    assert "Apache-2.0" in mini.summary
    for model in listed.models:
        assert (await stub.GetModel(pb.GetModelRequest(name=model.name))).model == model


async def test_the_catalogue_page_by_page(stub: Stub) -> None:
    names, token = [], ""
    while True:
        page = await stub.ListModels(pb.ListModelsRequest(page_size=1, page_token=token))
        names += [model.name for model in page.models]
        if not (token := page.next_page_token):
            break
    assert names == MODELS


async def test_bad_pages_and_names_are_refused(stub: Stub) -> None:
    assert (await refusal(stub.ListModels(pb.ListModelsRequest(page_size=-1))))[:2] == (INVALID, "ARGUMENT_INVALID")
    assert (await refusal(stub.ListModels(pb.ListModelsRequest(page_token="?"))))[:2] == (INVALID, "TOKEN_INVALID")
    unknown = (NOT_FOUND, "MODEL_NOT_FOUND", {"model": "clip", "known": "medley-mini,minilm"})
    assert await refusal(stub.GetModel(pb.GetModelRequest(name="clip"))) == unknown
    assert await refusal(stub.Embed(request("clip", "a"))) == unknown


async def test_text_and_pictures_come_back_in_order_as_unit_vectors(stub: Stub) -> None:
    contents: list[str | bytes] = ["a red shoe", plain(), "a blue hat", encoded(noise((60, 80)), "JPEG")]
    vectors = await embed(stub, "medley-mini", *contents)
    for content, vector in zip(contents, vectors, strict=True):
        assert vector.shape == (256,)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        (alone,) = await embed(stub, "medley-mini", content)
        assert alone @ vector > 0.99999


async def test_the_answer_says_what_a_picture_is_and_whose_the_vectors_are(stub: Stub) -> None:
    file = encoded(halves((40, 20)), "JPEG", exif=exif(6))
    answer = await stub.Embed(request("medley-mini", file, "text"))
    picture, text = answer.results
    expected = item_pb2.Media(
        sha256=hashlib.sha256(file).hexdigest(), mime_type="image/jpeg", size_bytes=len(file), width=20, height=40
    )
    assert picture.embedding.media == expected
    assert not text.embedding.HasField("media")
    inspected = await stub.InspectMedia(pb.InspectMediaRequest(data=file))
    assert inspected == pb.InspectMediaResponse(media=expected, content_type=collection_pb2.CONTENT_TYPE_IMAGE)
    assert answer.fingerprint == (await stub.GetModel(pb.GetModelRequest(name="medley-mini"))).model.fingerprint


async def test_every_bad_input_has_its_reason_and_the_good_ones_their_vectors(stub: Stub) -> None:
    big = plain((1001, 1000))
    contents: list[str | bytes] = [
        "good",
        "",
        " ",
        "x" * 100_001,
        b"",
        b"no picture",
        plain((64, 64))[:-30],
        big,
        plain(),
    ]
    results = (await stub.Embed(request("medley-mini", *contents))).results
    assert [result.WhichOneof("outcome") for result in results] == ["embedding", *["error"] * 7, "embedding"]
    reasons = [info(result.error)[:2] for result in results[1:-1]]
    assert reasons == [
        *[(INVALID, "TEXT_INVALID")] * 3,
        *[(INVALID, "MEDIA_INVALID")] * 3,
        (EXHAUSTED, "MEDIA_TOO_LARGE"),
    ]
    assert info(results[7].error)[2] == {"pixels": "1001000", "limit": "1000000"}
    refused = await refusal(stub.InspectMedia(pb.InspectMediaRequest(data=big)))
    assert refused == info(results[7].error)
    for place in (4, 5, 6):
        file = contents[place]
        assert isinstance(file, bytes)
        refused = await refusal(stub.InspectMedia(pb.InspectMediaRequest(data=file)))
        assert refused == info(results[place].error)


async def test_an_input_of_nothing_is_refused(stub: Stub) -> None:
    (result,) = (await stub.Embed(pb.EmbedRequest(model="minilm", inputs=[pb.EmbedInput()]))).results
    assert info(result.error)[1] == "ARGUMENT_INVALID"


async def test_an_unknown_purpose_is_refused(stub: Stub) -> None:
    wanted = request("minilm", "a")
    wanted.purpose = 7  # type: ignore[assignment]  # what a newer client may send
    with pytest.raises(grpc.aio.AioRpcError, match="purpose") as caught:
        await stub.Embed(wanted)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_purpose_changes_nothing_for_a_model_without_prefixes(stub: Stub) -> None:
    wanted = request("minilm", "a")
    plainly = await stub.Embed(wanted)
    wanted.purpose = pb.EMBED_PURPOSE_QUERY
    assert await stub.Embed(wanted) == plainly


async def test_a_model_of_texts_takes_no_picture(stub: Stub) -> None:
    picture, text = (await stub.Embed(request("minilm", plain(), "a"))).results
    assert info(picture.error) == (INVALID, "INPUT_NOT_SUPPORTED", {"model": "minilm", "content_type": "image"})
    assert text.HasField("embedding")


@pytest.mark.parametrize("count", [0, 257])
async def test_a_batch_has_1_to_256_inputs(stub: Stub, count: int) -> None:
    assert (await refusal(stub.Embed(request("minilm", *["a"] * count))))[:2] == (INVALID, "ARGUMENT_INVALID")
    assert len(await embed(stub, "minilm", *["a"] * 256)) == 256


async def test_another_fingerprint_is_refused(stub: Stub) -> None:
    mini, minilm = (await stub.ListModels(pb.ListModelsRequest())).models
    answer = await stub.Embed(request("minilm", "a", fingerprint=minilm.fingerprint))
    assert answer.fingerprint == minilm.fingerprint
    refused = await refusal(stub.Embed(request("minilm", "a", fingerprint=mini.fingerprint)))
    assert refused == (
        PRECONDITION,
        "FINGERPRINT_MISMATCH",
        {"expected": mini.fingerprint, "actual": minilm.fingerprint},
    )


async def test_many_calls_at_once_get_their_own_answers(stub: Stub) -> None:
    texts = [f"product number {number}" for number in range(60)]
    files = [encoded(noise((20 + number, 30)), "PNG") for number in range(20)]
    contents: list[str | bytes] = [*texts, *files]
    alone = {content: (await embed(stub, "medley-mini", content))[0] for content in contents[::8]}
    minilm = [asyncio.ensure_future(embed(stub, "minilm", text)) for text in texts]
    calls = [embed(stub, "medley-mini", content) for content in contents]
    answers = dict(zip(contents, await asyncio.gather(*calls), strict=True))
    for content, vector in alone.items():
        assert answers[content][0] @ vector > 0.99999
    assert all(vector.shape == (384,) for (vector,) in await asyncio.gather(*minilm))
    for text in texts[::8]:
        assert np.array_equal(answers[text][0], alone[text])


async def test_a_direct_call_answers_like_the_port(servicer: EmbedderServicer, stub: Stub) -> None:
    message = request("medley-mini", "a shoe", plain(), "")
    local = InProcessStub(servicer)
    assert await call("embedder", local.Embed, message) == await stub.Embed(message)
    with pytest.raises(NotFoundError) as caught:
        await call("embedder", local.GetModel, pb.GetModelRequest(name="clip"))
    assert caught.value.reason == "MODEL_NOT_FOUND"


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The thread of each decoding of a picture."""
    threads: list[int] = []
    decode = images.decode_image

    def recorded(*arguments: Any) -> images.DecodedImage:
        threads.append(threading.get_ident())
        return decode(*arguments)

    monkeypatch.setattr(images, "decode_image", recorded)
    return threads


async def test_the_event_loop_stays_free_while_pictures_are_decoded(stub: Stub, decoding: list[int]) -> None:
    file = encoded(noise((500, 500)), "PNG")
    bulk = asyncio.ensure_future(stub.Embed(request("medley-mini", *[file] * 40)))
    beside = 0
    while not bulk.done():
        await stub.GetModel(pb.GetModelRequest(name="minilm"))
        beside += 1
    assert len((await bulk).results) == 40
    assert beside > 4
    assert len(decoding) == 40
    assert threading.get_ident() not in decoding


async def test_a_cancelled_call_makes_room(decoding: list[int]) -> None:
    file = encoded(noise((500, 500)), "PNG")
    async with embedder_servicer(settings(threads=1, max_waiting=256)) as servicer:
        local = InProcessStub(servicer)
        with pytest.raises(DeadlineError):
            await call("embedder", local.Embed, request("medley-mini", *[file] * 256), seconds=0.05)
        await call("embedder", local.Embed, request("medley-mini", *["a"] * 256), seconds=HANG_SECONDS)
        assert len(decoding) < 256


async def test_a_deadline_over_the_port_makes_room_too() -> None:
    file = encoded(noise((500, 500)), "PNG")
    async with embedder_servicer(settings(max_waiting=256)) as servicer:
        register = partial(pb_grpc.add_EmbedderServiceServicer_to_server, servicer)
        async with (
            run_server(settings(), "medley.v1.EmbedderService", register) as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            stub: Stub = pb_grpc.EmbedderServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Embed(request("medley-mini", *[file] * 200), timeout=0.1)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            answer = await until_works(lambda: stub.Embed(request("minilm", *["a"] * 256)), grpc.aio.AioRpcError)
            assert len(answer.results) == 256


async def test_a_full_queue_refuses_at_once() -> None:
    file = encoded(noise((500, 500)), "PNG")
    async with embedder_servicer(settings(max_waiting=256)) as servicer:
        local = InProcessStub(servicer)
        bulk = asyncio.create_task(call("embedder", local.Embed, request("medley-mini", *[file] * 20)))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError) as caught:
            await call("embedder", local.Embed, request("minilm", *["a"] * 256))
        assert not bulk.done()
        assert caught.value.reason == "OVERLOADED"
        assert caught.value.metadata == {"queue": "embedder", "limit": "256"}
        assert len((await bulk).results) == 20


async def test_models_loaded_on_first_use_give_the_same_vectors() -> None:
    message = request("medley-mini", "a shoe", plain())
    answers = []
    for preload in (True, False):
        async with embedder_servicer(settings(preload=preload)) as servicer:
            answers.append(await call("embedder", InProcessStub(servicer).Embed, message))
    assert answers[0] == answers[1]


async def test_both_towers_of_a_text_share_one_trunk() -> None:
    async with embedder_servicer(settings()) as servicer:
        local = InProcessStub(servicer)
        one, many = (
            [call("embedder", local.Embed, request(model, "a red shoe")) for model in models]
            for models in (MODELS, MODELS * 4)
        )
        first = await asyncio.gather(*one)
        later = await asyncio.gather(*many)
        assert [answer.results for answer in later] == [answer.results for answer in first] * 4


async def test_an_altered_model_is_refused_at_the_start(tmp_path: Path) -> None:
    _copied_models(tmp_path, alter="minilm/text.onnx")
    process = await _embedder(EMBEDDER_MODELS_DIR=str(tmp_path), EMBEDDER_LISTEN="127.0.0.1:0")
    output = (await process.communicate())[0].decode()
    assert process.returncode == 1
    wanted = json.loads((BUILT_IN_MODELS / "minilm/model.json").read_text())["text"]["sha256"]
    assert f"cannot use {tmp_path}/minilm/text.onnx: expected sha256 {wanted}, it has " in output
    assert "Traceback" not in output


async def test_the_process_serves_and_stops_at_sigterm() -> None:
    process = await _embedder(EMBEDDER_LISTEN="127.0.0.1:0")
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), HANG_SECONDS)).decode()
    port = line.rsplit(" ", 1)[-1].strip()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Stub = health_pb2_grpc.HealthStub(channel)
        health = await stub.Check(health_pb2.HealthCheckRequest(service="medley.v1.EmbedderService"))
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        vectors = await embed(pb_grpc.EmbedderServiceStub(channel), "medley-mini", "a shoe", plain())
        assert len(vectors) == 2
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.wait(), HANG_SECONDS)
    assert process.returncode == 0


async def _embedder(**environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.embedder",
        env={**os.environ, **environment},
        cwd=BUILT_IN_MODELS.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


def _copied_models(target: Path, alter: str) -> None:
    for folder in MODELS:
        (target / folder).mkdir()
        for file in (BUILT_IN_MODELS / folder).iterdir():
            (target / folder / file.name).symlink_to(file)
    whole = (target / alter).read_bytes()
    (target / alter).unlink()
    (target / alter).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
