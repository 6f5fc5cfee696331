"""The server's status of a stream that it ended, which gRPC's asynchronous calls may lose.

When the server ends a call while a message is being sent, the failure to send becomes the call's status: for a moment
if the server's status arrives later, for good if it arrived just before
(https://github.com/grpc/grpc/issues/36066). So the status is read as soon as it is set, and if it is that failure, read
again until the server's status arrives.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc

INTERIM_DETAILS = "Internal error from Core"
TIMEOUT_SECONDS = 2.0
PAUSE_SECONDS = 0.01
STREAMING_REQUESTS = (grpc.aio.StreamUnaryCall, grpc.aio.StreamStreamCall)

Value = TypeVar("Value")


@asynccontextmanager
async def server_status(call: Any) -> AsyncIterator[None]:
    """Make errors raised in the block, which awaits or iterates `call`, carry the server's status.

    `call` may be any awaitable or asynchronous iterable; only gRPC calls with streaming requests are affected.
    """
    if not isinstance(call, STREAMING_REQUESTS):
        yield
        return
    reported: list[grpc.aio.AioRpcError] = []
    call.add_done_callback(lambda _: reported.append(_run_immediately(_status(call))))
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise await _final_status(call, reported[0] if reported else error) from error


async def _final_status(call: grpc.aio.Call, reported: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
    for _ in range(int(TIMEOUT_SECONDS / PAUSE_SECONDS)):
        if reported.details() != INTERIM_DETAILS:
            break
        await asyncio.sleep(PAUSE_SECONDS)
        reported = await _status(call)
    return reported


async def _status(call: grpc.aio.Call) -> grpc.aio.AioRpcError:
    initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
    return grpc.aio.AioRpcError(await call.code(), initial, trailing, await call.details())


def _run_immediately(coroutine: Coroutine[Any, Any, Value]) -> Value:
    """Return the result of `coroutine`, which must not suspend."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: Value = stop.value
        return value
    coroutine.close()
    raise RuntimeError("the call ended without a status")
