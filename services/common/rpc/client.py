"""Calls to other services, over gRPC or directly within the same process.

A client adapter holds a stub: the generated one over a channel, or an `InProcessStub`, which has the same methods but
calls the servicer. With both, the adapter awaits `call(...)` or iterates `stream(...)`, which apply the remaining time
of the caller's deadline and raise the `ServiceError` that the other service raised.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from medley._transport.aio_status import server_status
from services.common.deadlines import deadline_in, remaining_seconds
from services.common.errors import DeadlineError, MessageTooLargeError, ServiceUnavailableError
from services.common.rpc.statuses import from_status

CALL_SECONDS = 30.0
STREAM_SECONDS = 24 * 3600.0


class InProcessStub:
    """A stub that calls `servicer` in this process, without serialization.

    Messages are passed by reference: neither side may change one after sending or receiving it.
    """

    def __init__(self, servicer: object) -> None:
        self._servicer = servicer

    def __getattr__(self, method: str) -> Callable[..., Any]:
        behaviour = getattr(self._servicer, method)

        def invoke(request: Any, *, timeout: float) -> Any:
            answer = behaviour(request, None)
            return (
                _stream_with_timeout(answer, timeout)
                if isinstance(answer, AsyncIterable)
                else _with_timeout(answer, timeout)
            )

        return invoke


async def call(service: str, method: Callable[..., Any], request: Any, *, seconds: float = CALL_SECONDS) -> Any:
    """Return the response of a stub's unary-response `method` to `request`, a message or an async iterator of them.

    Raises:
        ServiceError: the error of the other service, with its reason.
        ServiceUnavailableError: the service does not answer.
        DeadlineError: the deadline passed.
    """
    with _translate_errors(service):
        answer = method(request, timeout=remaining_seconds(seconds))
        async with server_status(answer):
            return await answer


async def stream(
    service: str, method: Callable[..., Any], request: Any, *, seconds: float = STREAM_SECONDS
) -> AsyncIterator[Any]:
    """Yield the responses of a stub's stream-response `method`; raises as `call` does."""
    with _translate_errors(service):
        async for message in method(request, timeout=remaining_seconds(seconds)):
            yield message


async def _with_timeout(answer: Any, seconds: float) -> Any:
    with deadline_in(seconds):
        async with asyncio.timeout(seconds):
            return await answer


async def _stream_with_timeout(answer: AsyncIterable[Any], seconds: float) -> AsyncIterator[Any]:
    async with asyncio.timeout(seconds):
        async for message in answer:
            yield message


@contextmanager
def _translate_errors(service: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise DeadlineError(f"{service} did not answer in time", service=service) from error
    except grpc.aio.AioRpcError as error:
        raise _from_rpc(service, error) from error


def _from_rpc(service: str, error: grpc.aio.AioRpcError) -> Exception:
    status = _sent_status(error)
    known = from_status(status) if status else None
    if known is not None:
        return known
    match error.code():
        case grpc.StatusCode.UNAVAILABLE:
            return ServiceUnavailableError(service)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineError(f"{service} did not answer in time", service=service)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return MessageTooLargeError(
                f"a message to or from {service} is too large: {error.details()}", service=service
            )
        case _:
            return error


def _sent_status(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    try:
        return rpc_status.from_call(error)  # type: ignore[arg-type]  # works for aio errors too
    except ValueError:  # the details contradict the status, e.g. because gRPC refused the trailers
        return None
