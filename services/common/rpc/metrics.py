"""Prometheus metrics of a server, over HTTP at `/metrics` if its settings enable them."""

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

import grpc
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from services.common.errors import ServiceError
from services.common.rpc.interceptors import WrappingInterceptor
from services.common.rpc.statuses import to_status

CODES = {status.value[0]: status.name for status in grpc.StatusCode}
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Upper bounds of the buckets of durations, in seconds."""


class MetricsAddressError(Exception):
    """The address of the metrics is invalid or taken."""

    def __init__(self, address: str) -> None:
        super().__init__(f"cannot serve metrics on {address}: it must be a free host:port of this machine")


@asynccontextmanager
async def serve_metrics(listen: str, registry: CollectorRegistry) -> AsyncIterator[int]:
    """Serve the metrics of `registry` and of the process on `listen` while the block runs; yield the port.

    Raises:
        MetricsAddressError: the address is not host:port, or taken.
    """
    host, _, port = listen.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except (OSError, OverflowError, ValueError) as error:
        raise MetricsAddressError(listen) from error
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    try:
        yield server.server_port
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join)


class MetricsInterceptor(WrappingInterceptor):
    """Counts and times the calls over the server's port, by method and status."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._calls = Counter("medley_calls", "Calls answered, by status.", ["method", "code"], registry=registry)
        self._seconds = Histogram(
            "medley_call_seconds", "Time that calls took.", ["method"], registry=registry, buckets=BUCKETS
        )

    def _wrap_unary(self, method: str, behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(behaviour)
        async def answer(request: Any, context: Any) -> Any:
            with self._measure(method):
                return await behaviour(request, context)

        return answer

    def _wrap_streaming(
        self, method: str, behaviour: Callable[..., AsyncGenerator[Any]]
    ) -> Callable[..., AsyncIterator[Any]]:
        @functools.wraps(behaviour)
        async def answers(request: Any, context: Any) -> AsyncIterator[Any]:
            with self._measure(method):
                async with aclosing(behaviour(request, context)) as messages:
                    async for message in messages:
                        yield message

        return answers

    @contextmanager
    def _measure(self, method: str) -> Iterator[None]:
        began, code = time.perf_counter(), "OK"
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            code = "CANCELLED"
            raise
        except Exception as error:
            code = _code(error)
            raise
        finally:
            self._calls.labels(method, code).inc()
            self._seconds.labels(method).observe(time.perf_counter() - began)


def _code(error: BaseException) -> str:
    """Return the status of a call that ended with `error`; for an abort, that of the error that caused it."""
    cause = error.__context__ if isinstance(error, grpc.aio.AbortError) else error
    return CODES[to_status(cause).code] if isinstance(cause, ServiceError) else "INTERNAL"
