"""Which server is asked, and which no more, where the servers do what the test wants."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

pytest.importorskip("tritonclient", reason="the extra `triton` is not installed")

from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from services.common.errors import OverloadedError, ServiceUnavailableError
from services.common.vectors import Matrix
from services.embedder.adapters.triton.client import TritonClient
from services.embedder.adapters.triton.endpoint import ExpectedModel, Timeouts
from services.embedder.adapters.triton.golden import Golden, golden_rows
from services.embedder.adapters.triton.inputs import RowInputBuilder
from services.embedder.adapters.triton.layout import ServedTower
from services.embedder.adapters.triton.pool import Pool
from services.embedder.core.catalog import ModelFile, TextProjection
from services.embedder.core.errors import ModelFileError
from tests.waiting import HANG_SECONDS, until, until_raises, until_works

NAME, FINGERPRINT = "head.text", "p" * 32
TIMEOUTS = Timeouts(start=HANG_SECONDS, call=HANG_SECONDS, canary=1.5, canary_interval=0.1)
HEAD = TextProjection(ModelFile(Path("graph"), "0" * 64), "trunk", 3)
CODES = grpc.StatusCode
Behaviour = Callable[[Any, Any], Awaitable[None]]


async def well(request: Any, context: Any) -> None:
    """Answer at once."""


def refusing(code: grpc.StatusCode, message: str) -> Behaviour:
    async def refuse(request: Any, context: Any) -> None:
        await context.abort(code, message)

    return refuse


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # the client has no types
    """A server of one model, which answers a row with itself; canaries and callers may fare differently."""

    def __init__(self) -> None:
        self.callers: Behaviour = well
        self.canaries: Behaviour = well
        self.loading: Behaviour = well
        self.asked = 0
        self.control: list[str] = []
        self.fingerprint = FINGERPRINT
        self.turn = 1.0

    async def ServerReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerReadyResponse(ready=True)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        tensor = service_pb2.ModelMetadataResponse.TensorMetadata
        return service_pb2.ModelMetadataResponse(
            name=NAME,
            inputs=[tensor(name="rows", datatype="FP32", shape=[-1, 3])],
            outputs=[tensor(name="vector", datatype="FP32", shape=[-1, 3])],
        )

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        golden = Golden(unit(golden_rows(3)), 0.9999).to_text()
        parameters = {"fingerprint": self.fingerprint, "golden": golden}
        config = model_config_pb2.ModelConfig(name=NAME, max_batch_size=8, instance_group=[{"count": 1}])
        for name, value in parameters.items():
            config.parameters[name].string_value = value
        return service_pb2.ModelConfigResponse(config=config)

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        rows: Matrix = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(-1, 3)
        golden = np.array_equal(rows, golden_rows(3)[: len(rows)])
        self.asked += not golden
        await (self.canaries if golden else self.callers)(request, context)
        vectors = unit(rows * np.array([1, 1, self.turn], np.float32))
        tensor = service_pb2.ModelInferResponse.InferOutputTensor(name="vector", datatype="FP32", shape=vectors.shape)
        return service_pb2.ModelInferResponse(outputs=[tensor], raw_output_contents=[vectors.tobytes()])

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        self.control.append("unload")
        return service_pb2.RepositoryModelUnloadResponse()

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        self.control.append("load")
        await self.loading(request, context)
        return service_pb2.RepositoryModelLoadResponse()


def unit(rows: Matrix) -> Matrix:
    found: Matrix = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return found


@asynccontextmanager
async def serving(fake: FakeTriton) -> AsyncIterator[str]:
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def pool(*fakes: FakeTriton, reload: bool = False) -> AsyncIterator[Pool]:
    """Watch `fakes` until all that can be are admitted."""
    async with serving(fakes[0]) as one, serving(fakes[-1]) as two:
        clients = [TritonClient(address) for address in (one, two)[: len(fakes)]]
        expected = ExpectedModel(ServedTower(NAME, "head", HEAD, 3), RowInputBuilder((3,), 8), FINGERPRINT)
        made = Pool(clients, [expected], TIMEOUTS, reload=reload)
        async with made.watch():
            await made.until_ready(NAME)
            await until(lambda: ready(made) == sum(fake.fingerprint == FINGERPRINT for fake in fakes))
            yield made


def ready(made: Pool) -> int:
    """Return how many servers are asked: each runs a request of the model, and has another queued."""
    return made.policy(NAME).max_in_flight // 2


async def ask(made: Pool) -> Matrix:
    return await made.infer(NAME, [np.ones(3, np.float32)], 2)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (CODES.UNAVAILABLE, "Exceeds maximum queue size"),
        (CODES.UNAVAILABLE, "has stopped accepting new inference requests"),
        (CODES.INTERNAL, "Stub process 'head.text_0_0' is not healthy."),
        (CODES.NOT_FOUND, "Request for unknown model: 'head.text' is not found"),
    ],
)
async def test_what_was_not_executed_is_asked_of_another(code: grpc.StatusCode, message: str) -> None:
    one, two = FakeTriton(), FakeTriton()
    async with pool(one, two) as made:
        one.callers = refusing(code, message)
        for _ in range(5):
            assert (await ask(made)).shape == (1, 3)
        assert two.asked == 5


async def test_what_broke_off_is_not_repeated() -> None:
    one, two = FakeTriton(), FakeTriton()
    async with pool(one, two) as made:
        one.callers = two.callers = refusing(CODES.UNAVAILABLE, "something broke")
        with pytest.raises(ServiceUnavailableError):
            await ask(made)
        assert one.asked + two.asked == 1


async def test_where_every_queue_is_full_the_answer_is_overloaded() -> None:
    one, two = FakeTriton(), FakeTriton()
    async with pool(one, two) as made:
        one.callers = two.callers = refusing(CODES.UNAVAILABLE, "Exceeds maximum queue size")
        with pytest.raises(OverloadedError):
            await ask(made)
        one.callers = well
        await ask(made)  # nobody was taken out for it


async def test_the_least_busy_is_asked() -> None:
    one, two, gate = FakeTriton(), FakeTriton(), asyncio.Event()

    async def held(request: Any, context: Any) -> None:
        await gate.wait()

    async with pool(one, two) as made:
        one.callers = two.callers = held
        asked = []
        for number in range(6):
            asked.append(asyncio.create_task(ask(made)))
            await until(lambda number=number: one.asked + two.asked > number)  # type: ignore[misc]  # its default
        assert (one.asked, two.asked) == (3, 3)
        gate.set()
        await asyncio.gather(*asked)


async def test_a_server_that_comes_to_compute_otherwise_is_out_until_it_does_not() -> None:
    fake = FakeTriton()
    async with pool(fake) as made:
        fake.turn = 0.9
        await until(lambda: not ready(made))
        with pytest.raises(ServiceUnavailableError, match="golden vector"):
            await ask(made)
        fake.turn = 1.0
        await until(lambda: ready(made))
        await ask(made)


async def test_a_server_that_comes_back_with_another_model_stays_out() -> None:
    fake = FakeTriton()
    async with pool(fake) as made:
        fake.canaries = refusing(CODES.UNAVAILABLE, "restarting")
        await until(lambda: not ready(made))
        fake.canaries, fake.fingerprint = well, "q" * 32
        error: Exception | None = None
        while "fingerprint" not in str(error):
            await asyncio.sleep(TIMEOUTS.canary_interval)
            error = await until_raises(ServiceUnavailableError, lambda: ask(made))
        assert not ready(made)


async def test_a_late_canary_means_nothing_while_others_are_answered() -> None:
    fake = FakeTriton()

    async def late(request: Any, context: Any) -> None:
        await asyncio.sleep(600)

    async with pool(fake) as made:
        fake.canaries = late
        enough = time.monotonic() + 2 * TIMEOUTS.canary
        while time.monotonic() < enough:
            await ask(made)
            await asyncio.sleep(0.02)
        await until(lambda: not ready(made))
        with pytest.raises(ServiceUnavailableError, match="in time"):
            await ask(made)


async def test_what_waits_at_a_server_that_stopped_answering_fails_with_it() -> None:
    fake = FakeTriton()

    async def late(request: Any, context: Any) -> None:
        await asyncio.sleep(600)

    async with pool(fake) as made:
        fake.canaries = fake.callers = late
        with pytest.raises(ServiceUnavailableError, match="stopped answering"):
            await made.infer(NAME, [np.ones(3, np.float32)], 600)


DEAD = refusing(CODES.INTERNAL, "Stub process 'head.text_0_0' is not healthy.")


async def test_a_dead_model_is_loaded_anew_once_and_not_again_and_again() -> None:
    fake = FakeTriton()
    async with pool(fake, reload=True):
        fake.canaries = DEAD
        await until(lambda: len(fake.control) == 2)
        await asyncio.sleep(5 * TIMEOUTS.canary_interval)
        assert fake.control == ["unload", "load"]


async def test_a_dead_model_is_left_alone_where_reloading_is_not_wanted() -> None:
    fake = FakeTriton()
    async with pool(fake) as made:
        fake.canaries = DEAD
        await until(lambda: not ready(made))
        await asyncio.sleep(5 * TIMEOUTS.canary_interval)
        assert fake.control == []


async def test_a_model_unloaded_from_here_is_loaded_however_often_it_takes() -> None:
    fake = FakeTriton()

    async def mended(request: Any, context: Any) -> None:
        if fake.control.count("load") < 3:
            await context.abort(CODES.INTERNAL, "no memory")
        fake.canaries = well

    async with pool(fake, reload=True) as made:
        fake.loading, fake.canaries = mended, DEAD
        await until(lambda: fake.control.count("load") == 3)
        await until_works(lambda: ask(made), ServiceUnavailableError)
        assert fake.control.count("load") == 3


async def test_a_foreign_fingerprint_is_refused_at_the_start() -> None:
    fake = FakeTriton()
    fake.fingerprint = "q" * 32
    with pytest.raises(ModelFileError, match="expected fingerprint"):
        async with pool(fake):
            pass


async def test_one_good_server_is_enough_to_start() -> None:
    one, two = FakeTriton(), FakeTriton()
    one.fingerprint = "q" * 32
    async with pool(one, two) as made:
        await ask(made)
        assert two.asked == 1
