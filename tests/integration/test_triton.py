"""Real Triton servers that fail: killed, stopped, with dead processes inside, or with other models than wanted."""

import asyncio
import dataclasses
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc.aio import InferenceServerClient

from medley.v1 import embedder_service_pb2 as pb
from medley.v1 import embedder_service_pb2_grpc as pb_grpc
from services.common.deadlines import deadline_in
from services.common.errors import DeadlineError, OverloadedError, ServiceError, ServiceUnavailableError
from services.common.rpc.server import run_server
from services.embedder.adapters.model_folders import read_models
from services.embedder.adapters.triton.client import TritonClient
from services.embedder.adapters.triton.encoder import TritonRuntime, triton_runtime
from services.embedder.adapters.triton.inputs import TextInputBuilder
from services.embedder.core.catalog import Model, TextTower
from services.embedder.core.errors import ModelFileError
from services.embedder.settings import BUILT_IN_MODELS, EmbedderSettings
from services.embedder.triton_repository import write_repository
from services.embedder.wiring import embedder_servicer
from tests.contract.test_encoders import onnx, picture_tower, pictures, text_tower
from tests.triton_servers import SHORT, needs_triton, runtime, triton, triton_server
from tests.unit.embedder.files import encoded, halves
from tests.waiting import HANG_SECONDS, until, until_raises, until_works
from tools.triton import TritonServer

pytestmark = [pytest.mark.triton, needs_triton]

MINILM = "minilm.text"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TritonServer, TritonServer]]:
    folder = tmp_path_factory.mktemp("triton")
    with triton(folder) as one, triton_server(folder / "repository", folder / "other.log") as two:
        yield one, two


@pytest.fixture
def pair(servers: tuple[TritonServer, TritonServer]) -> Iterator[tuple[TritonServer, TritonServer]]:
    """Two servers in good health, and so again for the next test."""
    yield servers
    for server in servers:
        server.kill()
        server.start()


@pytest.fixture
def one(servers: tuple[TritonServer, TritonServer]) -> TritonServer:
    """A server that the test leaves as it is."""
    return servers[0]


@pytest.fixture
async def client(servers: tuple[TritonServer, TritonServer]) -> AsyncIterator[InferenceServerClient]:
    client = InferenceServerClient(servers[0].endpoint)
    yield client
    await client.close()


@asynccontextmanager
async def embedder(*servers: TritonServer, **changes: Any) -> AsyncIterator[Any]:
    """The whole service over a port, run by `servers`."""
    whole = {
        "listen": "127.0.0.1:0",
        "drain_seconds": 0,
        "runtime": "triton",
        "triton_endpoints": ",".join(server.endpoint for server in servers),
        "triton_reload": False,
        "triton_canary_seconds": 0.3,
        "triton_canary_timeout_seconds": 1.0,
        "text_cache_entries": 0,
    }
    settings = EmbedderSettings(**{**whole, **changes})
    async with embedder_servicer(settings) as servicer:
        register = partial(pb_grpc.add_EmbedderServiceServicer_to_server, servicer)
        async with (
            run_server(settings, "medley.v1.EmbedderService", register) as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            yield pb_grpc.EmbedderServiceStub(channel)


async def eventually(works: Callable[[], Awaitable[object]]) -> None:
    """Try until `works` raises nothing of ours."""
    await until_works(works, ServiceError, grpc.aio.AioRpcError)


def ready(served: TritonRuntime) -> int:
    """Return how many servers are asked for texts: each runs a request on its one copy, and has another queued."""
    return served._pool.policy(MINILM).max_in_flight // 2


async def test_the_service_embeds_texts_and_pictures_as_it_does_in_process(one: TritonServer) -> None:
    request = pb.EmbedRequest(
        model="medley-mini",
        inputs=[pb.EmbedInput(text="ein grüner Stuhl"), pb.EmbedInput(image=encoded(halves())), pb.EmbedInput(text="")],
    )
    async with embedder(one) as stub:
        served = await stub.Embed(request)
    async with embedder(one, runtime="onnx") as stub:
        here = await stub.Embed(request)
    assert served.fingerprint == here.fingerprint
    for mine, theirs in zip(served.results[:2], here.results[:2], strict=True):
        vectors = [np.frombuffer(each.embedding.vector.float32_le, "<f4") for each in (mine, theirs)]
        assert vectors[0] @ vectors[1] >= 0.9999
        assert mine.embedding.media == theirs.embedding.media
    assert served.results[2] == here.results[2]


async def test_triton_batches_requests_of_concurrent_callers(one: TritonServer, client: InferenceServerClient) -> None:
    async def counts() -> tuple[int, int]:
        (stats,) = (await client.get_inference_statistics(MINILM)).model_stats
        return stats.inference_stats.success.count, stats.execution_count

    builder = TextInputBuilder(text_tower())

    async def ask(caller: int) -> None:
        for turn in range(4):
            inputs = await builder.build([f"caller {caller} turn {turn}"], {"text": ("BYTES", (1,))})
            await client.infer(MINILM, inputs)

    before = await counts()
    await asyncio.gather(*(ask(caller) for caller in range(16)))
    requests = executions = 0
    async with asyncio.timeout(HANG_SECONDS):
        while requests < 64:  # Triton counts a request some time after its answer
            requests, executions = (after - earlier for after, earlier in zip(await counts(), before, strict=True))
    assert requests == 64
    assert executions <= requests // 2


async def test_concurrent_calls_travel_together(one: TritonServer, client: InferenceServerClient) -> None:
    async def count() -> int:
        (stats,) = (await client.get_inference_statistics(MINILM)).model_stats
        return int(stats.inference_stats.success.count)

    async with runtime(one, timeouts=dataclasses.replace(SHORT, canary_interval=100)) as served:
        encoder = served.text_encoder(text_tower())
        await encoder.warm()
        before = await count()
        await asyncio.gather(*(encoder.encode([f"text {number}"]) for number in range(64)))
        assert await count() - before <= 16


async def test_a_killed_server_fails_calls_within_their_deadline_and_is_found_again(
    pair: tuple[TritonServer, TritonServer],
) -> None:
    server, outcomes = pair[0], list[str]()

    async def ask(stub: Any, text: str) -> str:
        try:
            await stub.Embed(pb.EmbedRequest(model="minilm", inputs=[pb.EmbedInput(text=text)]), timeout=HANG_SECONDS)
        except grpc.aio.AioRpcError as error:
            await asyncio.sleep(0.02)
            return str(error.code().name)
        return "OK"

    async def load(stub: Any, caller: int, over: asyncio.Event) -> None:
        while not over.is_set():
            outcomes.append(await ask(stub, f"caller {caller} at {time.monotonic()}"))

    async with embedder(server) as stub:
        over = asyncio.Event()
        callers = [asyncio.create_task(load(stub, caller, over)) for caller in range(8)]
        await until(lambda: "OK" in outcomes)
        await asyncio.to_thread(server.kill)
        await until(lambda: "UNAVAILABLE" in outcomes)
        await asyncio.to_thread(server.start)
        await eventually(lambda: stub.Embed(pb.EmbedRequest(model="minilm", inputs=[pb.EmbedInput(text="up")])))
        over.set()
        await asyncio.gather(*callers)
    assert set(outcomes) == {"OK", "UNAVAILABLE"}


async def test_a_dead_process_behind_a_ready_server_is_found_without_traffic_and_comes_back(
    pair: tuple[TritonServer, TritonServer], client: InferenceServerClient
) -> None:
    async with runtime(pair[0]) as served:
        encoder = served.text_encoder(text_tower())
        before = await encoder.encode(["a red shoe"])
        (stub,) = pair[0].stubs(MINILM)
        os.kill(stub, signal.SIGKILL)
        await until(lambda: not ready(served))
        assert await client.is_model_ready(MINILM)
        with pytest.raises(ServiceUnavailableError, match="not healthy"):
            await encoder.encode(["a red shoe"])
        await served.image_encoder(picture_tower()).encode(pictures()[:1])  # its process lives

        await client.unload_model(MINILM)
        await client.load_model(MINILM)
        await eventually(lambda: encoder.encode(["a red shoe"]))
        assert np.array_equal(await encoder.encode(["a red shoe"]), before)


async def test_a_dead_process_is_replaced_where_reloading_is_allowed(pair: tuple[TritonServer, TritonServer]) -> None:
    async with runtime(pair[0], reload=True) as served:
        encoder = served.text_encoder(text_tower())
        await encoder.warm()
        (stub,) = pair[0].stubs(MINILM)
        os.kill(stub, signal.SIGKILL)
        await until_raises(ServiceUnavailableError, lambda: encoder.encode(["a red shoe"]))
        await eventually(lambda: encoder.encode(["a red shoe"]))
        assert pair[0].stubs(MINILM) != [stub]


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Two copies of each model, behind a queue of two requests."""
    folder = tmp_path_factory.mktemp("narrow")
    write_repository(BUILT_IN_MODELS, folder / "repository", instances=2, max_queue=2)
    with triton_server(folder / "repository", folder / "server.log") as server:
        yield server


async def test_a_full_queue_refuses_and_does_not_count_as_dead(narrow: TritonServer) -> None:
    client = TritonClient(narrow.endpoint)
    builder = TextInputBuilder(text_tower())
    inputs = await builder.build(["word " * 300] * 8, {"text": ("BYTES", (1,))})
    asked = (client.infer(MINILM, inputs, 8, 384, HANG_SECONDS) for _ in range(24))
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    await client.close()
    kinds = {type(outcome) for outcome in outcomes}
    assert kinds == {np.ndarray, OverloadedError}


async def test_one_dead_copy_of_two_is_found_and_replaced(narrow: TritonServer) -> None:
    async with runtime(narrow, reload=True) as served:
        encoder = served.text_encoder(text_tower())
        await encoder.warm()
        dead, living = narrow.stubs(MINILM)
        os.kill(dead, signal.SIGKILL)
        await until(lambda: len(set(narrow.stubs(MINILM)) - {living, dead}) == 2)
        await eventually(lambda: encoder.encode(["a red shoe"]))
        assert dead not in narrow.stubs(MINILM)


async def test_callers_do_not_notice_a_dead_process_where_another_server_is(
    pair: tuple[TritonServer, TritonServer],
) -> None:
    async with runtime(*pair) as served:
        encoder = served.text_encoder(text_tower())
        await until(lambda: ready(served) == 2)
        (stub,) = pair[0].stubs(MINILM)
        os.kill(stub, signal.SIGKILL)
        for number in range(100):
            assert (await encoder.encode([f"text {number}"])).shape == (1, 384)


async def test_callers_do_not_notice_a_server_that_was_shut_down(pair: tuple[TritonServer, TritonServer]) -> None:
    async with runtime(*pair) as served:
        encoder = served.text_encoder(text_tower())
        await until(lambda: ready(served) == 2)
        stopping = asyncio.create_task(asyncio.to_thread(pair[0].stop))
        number = 0
        while not stopping.done():
            await asyncio.gather(*(encoder.encode([f"text {number} {caller}"]) for caller in range(4)))
            number += 1
        await encoder.encode(["after"])
    assert number > 0  # calls were under way while it stopped


async def test_a_stopped_server_costs_no_more_than_the_deadline_and_the_other_takes_over(
    pair: tuple[TritonServer, TritonServer],
) -> None:
    async with runtime(*pair) as served:
        encoder = served.text_encoder(text_tower())
        await until(lambda: ready(served) == 2)
        pair[0].signal(signal.SIGSTOP)

        for number in range(5):
            with deadline_in(0.8), suppress(DeadlineError, ServiceUnavailableError):
                await encoder.encode([f"text {number}"])
        await until(lambda: ready(served) == 1)
        for number in range(50):
            with deadline_in(HANG_SECONDS):
                await encoder.encode([f"later {number}"])
        await asyncio.to_thread(restart, pair[0])
        await until(lambda: ready(served) == 2)


def restart(server: TritonServer) -> None:
    """Do what a liveness probe has done: continued instead, Triton sometimes aborts over locks held too long."""
    server.kill()
    server.start()


async def test_a_lone_stopped_server_answers_deadline_then_unavailable(pair: tuple[TritonServer, TritonServer]) -> None:
    async with embedder(pair[0]) as stub:
        request = pb.EmbedRequest(model="minilm", inputs=[pb.EmbedInput(text="a red shoe")])
        await stub.Embed(request)
        pair[0].signal(signal.SIGSTOP)
        code = grpc.StatusCode.DEADLINE_EXCEEDED
        while code is grpc.StatusCode.DEADLINE_EXCEEDED:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Embed(request, timeout=1)
            code = caught.value.code()
        assert code is grpc.StatusCode.UNAVAILABLE
        await asyncio.to_thread(restart, pair[0])
        await eventually(lambda: stub.Embed(request, timeout=HANG_SECONDS))


def minilm(**changes: Any) -> list[Model]:
    """The built-in text model, altered."""
    (model,) = (model for model in read_models(BUILT_IN_MODELS) if model.name == "minilm")
    assert isinstance(model.text, TextTower)
    return [dataclasses.replace(model, text=dataclasses.replace(model.text, **changes))]


async def refusal(models: list[Model], server: TritonServer) -> str:
    async with triton_runtime(models, [server.endpoint], SHORT, max_batch=32, reload=False) as served:
        (tower,) = (model.text for model in models)
        assert isinstance(tower, TextTower)
        with pytest.raises(ModelFileError) as caught:
            await served.text_encoder(tower).warm()
        with pytest.raises(ModelFileError):
            await served.text_encoder(tower).encode(["a red shoe"])
    return str(caught.value)


async def test_a_server_with_another_dimension_is_refused(one: TritonServer) -> None:
    said = await refusal(minilm(dimensions=385), one)
    assert f"model 'minilm.text' of Triton at {one.endpoint}" in said
    assert "385" in said
    assert "384" in said


async def test_a_server_with_a_foreign_fingerprint_is_refused(one: TritonServer) -> None:
    assert "fingerprint" in await refusal(minilm(max_tokens=255), one)


async def test_a_server_without_the_model_is_refused(one: TritonServer) -> None:
    (model,) = minilm()
    assert "does not have it" in await refusal([dataclasses.replace(model, name="other")], one)


@pytest.fixture(scope="module")
def altered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server whose text model has the right fingerprint, but other golden vectors than its weights make."""
    folder = tmp_path_factory.mktemp("altered")
    write_repository(BUILT_IN_MODELS, folder / "repository")
    config = folder / "repository" / MINILM / "config.pbtxt"
    golden = next(line for line in config.read_text().splitlines() if '"golden"' in line)
    vectors = golden.partition('float32_le\\": \\"')[2].partition('\\"')[0]
    quarter = len(vectors) // 4
    config.write_text(config.read_text().replace(vectors, vectors[quarter:] + vectors[:quarter]))
    with triton_server(folder / "repository", folder / "server.log") as server:
        yield server


async def test_a_server_that_computes_otherwise_is_refused(altered: TritonServer) -> None:
    assert "golden vector has cosine" in await refusal(minilm(), altered)


async def test_an_embedder_without_a_server_says_so_and_ends(tmp_path: Path) -> None:
    environment = {**os.environ, "EMBEDDER_RUNTIME": "triton", "EMBEDDER_TRITON_START_SECONDS": "1"}
    environment |= {"EMBEDDER_TRITON_ENDPOINTS": "127.0.0.1:1", "EMBEDDER_LISTEN": "127.0.0.1:0"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.embedder", env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), HANG_SECONDS)
    assert process.returncode == 1
    assert "triton has no server for" in said.decode().splitlines()[-1]
    assert "Traceback" not in said.decode()


TOKEN_MODEL = """
import numpy as np, onnxruntime, triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def initialize(self, args):
        self.graph = onnxruntime.InferenceSession(args["model_repository"] + "/1/model.onnx")
    def execute(self, requests):
        return [self.answer(request) for request in requests]
    def answer(self, request):
        names = ["input_ids", "attention_mask"]
        tensors = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in names}
        vectors = self.graph.run(["vector"], tensors)[0]
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("vector", vectors)])
"""


@pytest.fixture(scope="module")
def tokens_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """What the ONNX Runtime flavour makes of the text model, run by the one backend there is here."""
    folder = tmp_path_factory.mktemp("tokens")
    write_repository(BUILT_IN_MODELS, folder / "repository", flavour="onnxruntime")
    for model in (folder / "repository").iterdir():
        if model.name != MINILM:
            for file in sorted(model.rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
            model.rmdir()
    model = folder / "repository" / MINILM
    (model / "1" / "model.py").write_text(TOKEN_MODEL)
    config = (model / "config.pbtxt").read_text()
    config = config.replace('platform: "onnxruntime_onnx"', 'backend: "python"').replace("KIND_AUTO", "KIND_CPU")
    (model / "config.pbtxt").write_text(config)
    with triton_server(folder / "repository", folder / "server.log") as server:
        yield server


async def test_a_model_that_takes_tokens_gets_them_and_int8_texts_alone(tokens_server: TritonServer) -> None:
    texts = ["a red shoe", "ein grüner Stuhl 👟", "word " * 400, *(f"number {number}" for number in range(20))]
    there = triton_runtime(minilm(), [tokens_server.endpoint], SHORT, max_batch=32, reload=False)
    async with there as served, onnx() as here:
        expected = await here.text_encoder(text_tower()).encode(texts)
        assert np.array_equal(await served.text_encoder(text_tower()).encode(texts), expected)


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Model], TritonServer]]:
    """The built-in models, but texts filled up to a fixed length, and pictures each alone."""
    folder = tmp_path_factory.mktemp("padded")
    shutil.copytree(BUILT_IN_MODELS / "minilm", folder / "models" / "minilm")
    shutil.copytree(BUILT_IN_MODELS / "medley-mini", folder / "models" / "medley-mini")
    for name, tower, changes in (
        ("minilm", "text", {"max_tokens": 24, "pad_to": 32, "pad_id": 0}),
        ("medley-mini", "image", {"batch_sensitive": True}),
    ):
        manifest = folder / "models" / name / "model.json"
        described = json.loads(manifest.read_text())
        described[tower] |= changes
        manifest.write_text(json.dumps(described))
    with triton(folder, models=folder / "models") as server:
        yield read_models(folder / "models"), server


async def test_padding_and_running_alone_are_as_in_process(padded: tuple[list[Model], TritonServer]) -> None:
    models, server = padded
    towers = {model.name: model for model in models}
    text, image = towers["minilm"].text, towers["medley-mini"].image
    assert isinstance(text, TextTower)
    assert text.padding
    assert image
    assert image.batch_sensitive
    there = triton_runtime(models, [server.endpoint], SHORT, max_batch=32, reload=False)
    async with there as served, onnx() as here:
        for texts in (["a red shoe"], ["a red shoe", "word " * 100, "ein grüner Stuhl"]):
            expected = await here.text_encoder(text).encode(texts)
            assert np.array_equal(await served.text_encoder(text).encode(texts), expected)
        alone = await here.image_encoder(image).encode(pictures())
        assert (alone * await served.image_encoder(image).encode(pictures())).sum(axis=1).min() >= 0.9999
