"""What a server may say, said by one that a test holds in its hands."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import pytest

pytest.importorskip("tritonclient", reason="the extra `triton` is not installed")

from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from services.common.errors import DeadlineError, OverloadedError, ServiceError, ServiceUnavailableError
from services.common.vectors import Matrix
from services.embedder.adapters.triton.client import DeadBackendError, ModelMissingError, NotExecutedError, TritonClient
from services.embedder.adapters.triton.inputs import RowInputBuilder

Answer = Callable[[Any, Any], Awaitable[Any]]


class Scripted(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # the client has no types
    """A Triton that answers as the test wants."""

    answer: Answer

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        return await self.answer(request, context)


@pytest.fixture
async def server() -> AsyncIterator[tuple[Scripted, TritonClient]]:
    script, running = Scripted(), grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(script, running)
    port = running.add_insecure_port("127.0.0.1:0")
    await running.start()
    client = TritonClient(f"127.0.0.1:{port}")
    yield script, client
    await client.close()
    await running.stop(None)


async def ask(client: TritonClient, seconds: float = 2.0) -> Matrix:
    inputs = RowInputBuilder((3,), 8)
    tensors = await inputs.build(list(np.eye(2, 3, dtype=np.float32)), {"rows": ("FP32", (3,))})
    return await client.infer("model", tensors, 2, 4, seconds)


def vectors(values: Matrix) -> Answer:
    async def answer(request: Any, context: Any) -> Any:
        tensor = service_pb2.ModelInferResponse.InferOutputTensor(name="vector", datatype="FP32", shape=values.shape)
        return service_pb2.ModelInferResponse(outputs=[tensor], raw_output_contents=[values.tobytes()])

    return answer


def status(code: grpc.StatusCode, message: str) -> Answer:
    async def answer(request: Any, context: Any) -> Any:
        await context.abort(code, message)

    return answer


async def test_vectors_arrive(server: tuple[Scripted, TritonClient]) -> None:
    script, client = server
    script.answer = vectors(np.eye(2, 4, dtype=np.float32))
    assert np.array_equal(await ask(client), np.eye(2, 4))
    assert client.answered == {"model": 1}
    assert client.outstanding == 0


@pytest.mark.parametrize("shape", [(0, 4), (2, 3), (1, 4), (8,)])
async def test_an_answer_of_another_shape_is_no_answer(
    server: tuple[Scripted, TritonClient], shape: tuple[int]
) -> None:
    script, client = server
    script.answer = vectors(np.zeros(shape, np.float32))
    with pytest.raises(DeadBackendError, match="from model for"):
        await ask(client)


async def test_what_is_no_number_is_no_answer(server: tuple[Scripted, TritonClient]) -> None:
    script, client = server
    script.answer = vectors(np.full((2, 4), np.nan, np.float32))
    with pytest.raises(DeadBackendError):
        await ask(client)


CODES = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (CODES.UNAVAILABLE, "Exceeds maximum queue size", OverloadedError),
        (CODES.UNAVAILABLE, "Request timeout expired", DeadlineError),
        (CODES.UNAVAILABLE, "Server is stopping, scheduler for model has stopped accepting new", NotExecutedError),
        (CODES.UNAVAILABLE, "something broke", ServiceUnavailableError),
        (CODES.NOT_FOUND, "Request for unknown model: 'model' is not found", ModelMissingError),
        (CODES.UNAVAILABLE, "Request for unknown model: 'model' is not ready", ModelMissingError),
        (CODES.INTERNAL, "Stub process 'model_0_0' is not healthy.", DeadBackendError),
        (CODES.INTERNAL, "onnx runtime error 6", ServiceUnavailableError),
        (CODES.DEADLINE_EXCEEDED, "late", DeadlineError),
    ],
)
async def test_statuses_become_errors_of_ours(
    server: tuple[Scripted, TritonClient], code: grpc.StatusCode, message: str, kind: type[ServiceError]
) -> None:
    script, client = server
    script.answer = status(code, message)
    with pytest.raises(kind) as caught:
        await ask(client)
    assert type(caught.value) is kind


async def test_what_is_our_own_fault_is_not_disguised(server: tuple[Scripted, TritonClient]) -> None:
    script, client = server
    script.answer = status(CODES.INVALID_ARGUMENT, "unexpected shape")
    with pytest.raises(InferenceServerException):
        await ask(client)


async def test_nobody_listening_means_not_executed() -> None:
    client = TritonClient("127.0.0.1:1")
    with pytest.raises(NotExecutedError):
        await ask(client)
    await client.close()


async def test_the_deadline_travels_to_the_server_and_is_kept_here(server: tuple[Scripted, TritonClient]) -> None:
    script, client = server
    seen: list[int] = []

    async def slow(request: Any, context: Any) -> Any:
        seen.append(request.parameters["timeout"].int64_param)
        await asyncio.sleep(5)

    script.answer = slow
    with pytest.raises(DeadlineError):
        await ask(client, 0.2)
    assert seen == [pytest.approx(200_000, rel=0.01)]
    with pytest.raises(DeadlineError):
        await ask(client, 0)
    assert len(seen) == 1


async def test_what_is_abandoned_fails_at_once_and_what_is_cancelled_is_cancelled(
    server: tuple[Scripted, TritonClient],
) -> None:
    script, client = server

    async def slow(request: Any, context: Any) -> Any:
        await asyncio.sleep(5)

    script.answer = slow
    one, two = (asyncio.create_task(ask(client, 10)) for _ in range(2))
    await asyncio.sleep(0.1)
    assert client.outstanding == 2
    two.cancel()
    with pytest.raises(asyncio.CancelledError):
        await two
    client.abandon("model")
    with pytest.raises(ServiceUnavailableError, match="stopped answering"):
        await one
    assert client.outstanding == 0
