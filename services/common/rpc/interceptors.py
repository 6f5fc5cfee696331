"""Server interceptors: translation of errors to statuses, deadlines, and the limit on concurrent calls."""

import functools
import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from grpc_status import rpc_status

from services.common.concurrency.limiter import ConcurrencyLimiter
from services.common.deadlines import set_deadline
from services.common.errors import ServiceError
from services.common.rpc.statuses import to_status, truncate_for_trailers

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class WrappingInterceptor(grpc.aio.ServerInterceptor, ABC):
    """Wraps the handler of each method, of any of the four kinds; cached, because wrapping is slow."""

    def __init__(self) -> None:
        self._handlers: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the wrapped handler of the call's method; None if there is no such method."""
        method = handler_call_details.method
        if method not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None:
                return handler
            self._handlers[method] = self._wrap(method, handler)
        return self._handlers[method]

    def _wrap(self, method: str, handler: Any) -> Any:
        sides = [
            "stream" if streaming else "unary" for streaming in (handler.request_streaming, handler.response_streaming)
        ]
        behaviour = getattr(handler, "_".join(sides))
        wrap = self._wrap_streaming if inspect.isasyncgenfunction(behaviour) else self._wrap_unary
        return handler._replace(**{"_".join(sides): wrap(method, behaviour)})

    @abstractmethod
    def _wrap_unary(self, method: str, behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Wrap a handler that returns its response."""

    @abstractmethod
    def _wrap_streaming(
        self, method: str, behaviour: Callable[..., AsyncGenerator[Any]]
    ) -> Callable[..., AsyncIterator[Any]]:
        """Wrap a handler that yields its responses."""


class ErrorInterceptor(WrappingInterceptor):
    """Translates a `ServiceError` to its status with an `ErrorInfo`, and any other exception to INTERNAL.

    At most `max_calls` calls run at a time; further ones are refused with OVERLOADED.
    """

    def __init__(self, max_calls: int) -> None:
        super().__init__()
        self._limiter = ConcurrencyLimiter("calls", max_calls)

    def _wrap_unary(self, method: str, behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(behaviour)
        async def wrapped(request: Any, context: Context) -> Any:
            try:
                set_deadline(context.time_remaining())
                with self._limiter.admit():
                    return await behaviour(request, context)
            except Exception as error:
                await _abort(context, error)

        return wrapped

    def _wrap_streaming(
        self, method: str, behaviour: Callable[..., AsyncGenerator[Any]]
    ) -> Callable[..., AsyncIterator[Any]]:
        @functools.wraps(behaviour)
        async def wrapped(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                set_deadline(context.time_remaining())
                with self._limiter.admit():
                    async with aclosing(behaviour(request, context)) as messages:
                        async for message in messages:
                            yield message
            except Exception as error:
                await _abort(context, error)

        return wrapped


async def _abort(context: Context, error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, ServiceError):
        await context.abort_with_status(rpc_status.to_status(truncate_for_trailers(to_status(error))))
    log.error("unexpected error", exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "internal error")
