"""What the server said at the end of a stream, where gRPC's asynchronous calls forget it.

When the server ends a call while a message is on its way out, the failure of that message becomes the call's status:
for a moment if the server's status is still to come, for good if it came just before
(https://github.com/grpc/grpc/issues/36066). So the status is read when it is first set, and, where that is the failure,
once more when the server's has arrived.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc

INTERIM_DETAILS = "Internal error from Core"
TIMEOUT_SECONDS = 2.0
PAUSE_SECONDS = 0.01
SENDING = (grpc.aio.StreamUnaryCall, grpc.aio.StreamStreamCall)

Value = TypeVar("Value")


@asynccontextmanager
async def server_status(call: Any) -> AsyncIterator[None]:
    """Await or iterate `call` within: what it raises has the status that the server ended it with.

    `call` may be any awaitable or asynchronous iterable: only a call of gRPC's that streams its requests is looked at.
    """
    if not isinstance(call, SENDING):
        yield
        return
    said: list[grpc.aio.AioRpcError] = []
    call.add_done_callback(lambda _: said.append(_at_once(_status(call))))
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise await _last_word(call, said[0] if said else error) from error


async def _last_word(call: grpc.aio.Call, said: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
    for _ in range(int(TIMEOUT_SECONDS / PAUSE_SECONDS)):
        if said.details() != INTERIM_DETAILS:
            break
        await asyncio.sleep(PAUSE_SECONDS)
        said = await _status(call)
    return said


async def _status(call: grpc.aio.Call) -> grpc.aio.AioRpcError:
    initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
    return grpc.aio.AioRpcError(await call.code(), initial, trailing, await call.details())


def _at_once(coroutine: Coroutine[Any, Any, Value]) -> Value:
    """Return what `coroutine`, which has nothing to wait for, returns."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: Value = stop.value
        return value
    coroutine.close()
    raise RuntimeError("the call ended without a status")
