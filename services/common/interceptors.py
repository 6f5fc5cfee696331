"""What stands between gRPC and every servicer: errors become statuses, deadlines are kept, calls are counted."""

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
from grpc_status import rpc_status

from services.common.deadlines import begin_call
from services.common.errors import OverloadedError, ServiceError
from services.common.statuses import to_status

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Turn a `ServiceError` into its status with an `ErrorInfo`, and any other exception into INTERNAL.

    At most `max_calls` calls run at a time; one more is refused at once with OVERLOADED.
    """

    def __init__(self, max_calls: int) -> None:
        self._max_calls = max_calls
        self._calls = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of the call's method, whichever of the four kinds it is."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        side = "stream" if handler.request_streaming else "unary"
        name, wrap = (
            (f"{side}_stream", self._streaming) if handler.response_streaming else (f"{side}_unary", self._unary)
        )
        return handler._replace(**{name: wrap(getattr(handler, name))})

    def _unary(self, behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(behaviour)
        async def wrapped(request: Any, context: Context) -> Any:
            async with self._guarded(context):
                return await behaviour(request, context)

        return wrapped

    def _streaming(self, behaviour: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        @functools.wraps(behaviour)
        async def wrapped(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._guarded(context):
                async for message in behaviour(request, context):
                    yield message

        return wrapped

    @asynccontextmanager
    async def _guarded(self, context: Context) -> AsyncIterator[None]:
        try:
            with self._counted():
                begin_call(context.time_remaining())
                yield
        except grpc.aio.AbortError:
            raise
        except ServiceError as error:
            await context.abort_with_status(rpc_status.to_status(to_status(error)))
        except Exception:
            log.exception("unexpected error")
            await context.abort(grpc.StatusCode.INTERNAL, "internal error")

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self._calls >= self._max_calls:
            raise OverloadedError(f"{self._max_calls} calls are running", queue="calls", limit=str(self._max_calls))
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
