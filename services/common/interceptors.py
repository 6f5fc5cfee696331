"""What stands between gRPC and every servicer: errors become statuses, deadlines are kept, calls are counted."""

import functools
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from grpc_status import rpc_status

from services.common.deadlines import begin_call
from services.common.errors import OverloadedError, ServiceError
from services.common.statuses import in_trailers, to_status

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Turn a `ServiceError` into its status with an `ErrorInfo`, and any other exception into INTERNAL.

    At most `max_calls` calls run at a time; one more is refused at once with OVERLOADED.
    """

    def __init__(self, max_calls: int) -> None:
        self._max_calls = max_calls
        self._calls = 0
        self._handlers: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of the call's method, whichever of the four kinds it is; once, for it costs a while."""
        method = handler_call_details.method
        if method not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None:
                return handler
            self._handlers[method] = self._wrapped(handler)
        return self._handlers[method]

    def _wrapped(self, handler: Any) -> Any:
        """Wrap a handler that yields its answers, or one that returns its answer or writes to the context."""
        sides = [
            "stream" if streaming else "unary" for streaming in (handler.request_streaming, handler.response_streaming)
        ]
        behaviour = getattr(handler, "_".join(sides))
        wrap = self._streaming if inspect.isasyncgenfunction(behaviour) else self._unary
        return handler._replace(**{"_".join(sides): wrap(behaviour)})

    def _unary(self, behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(behaviour)
        async def wrapped(request: Any, context: Context) -> Any:
            try:
                self._begin(context)
                try:
                    return await behaviour(request, context)
                finally:
                    self._calls -= 1
            except Exception as error:
                await _abort(context, error)

        return wrapped

    def _streaming(self, behaviour: Callable[..., AsyncGenerator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        @functools.wraps(behaviour)
        async def wrapped(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                self._begin(context)
                try:
                    async with aclosing(behaviour(request, context)) as messages:
                        async for message in messages:
                            yield message
                finally:
                    self._calls -= 1
            except Exception as error:
                await _abort(context, error)

        return wrapped

    def _begin(self, context: Context) -> None:
        if self._calls >= self._max_calls:
            raise OverloadedError(f"{self._max_calls} calls are running", queue="calls", limit=str(self._max_calls))
        begin_call(context.time_remaining())
        self._calls += 1


async def _abort(context: Context, error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, ServiceError):
        await context.abort_with_status(rpc_status.to_status(in_trailers(to_status(error))))
    log.error("unexpected error", exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "internal error")
