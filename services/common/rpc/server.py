"""Run a gRPC server from start to drained stop."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from services.common.rpc.interceptors import ErrorInterceptor
from services.common.rpc.metrics import MetricsInterceptor, serve_metrics
from services.common.settings import ServerSettings

Register = Callable[[grpc.aio.Server], None]

PING_MS = 30_000
"""How often a client that waits for an answer may ask whether the server lives; one that asks more often is cut off."""


class ListenError(Exception):
    """A server's address cannot be had."""

    def __init__(self, address: str) -> None:
        super().__init__(f"cannot listen on {address}: the port is taken, or the address is not this machine's")


@asynccontextmanager
async def run_server(
    settings: ServerSettings, service: str, register: Register, metrics: CollectorRegistry | None = None
) -> AsyncIterator[int]:
    """Serve what `register` adds, plus health and reflection, while the block runs; yield the bound TCP port.

    `service` is the full name of the service, e.g. "medley.v1.StoreService". What `register` adds must be warm: health
    says SERVING as soon as the port answers. `metrics` are what the service tells besides its calls, where the settings
    want metrics at all.

    Raises:
        ListenError: another server has the port.
        MetricsAddressError: the address of the metrics cannot be had.
    """
    registry = metrics or CollectorRegistry()
    interceptors: list[grpc.aio.ServerInterceptor] = [ErrorInterceptor(settings.max_calls)]
    if settings.metrics_listen:
        interceptors.insert(0, MetricsInterceptor(registry))
    # Without this a second server would share the port, and each call would go to either.
    options = [*message_limits(settings), ("grpc.so_reuseport", 0)]
    options.append(("grpc.http2.min_ping_interval_without_data_ms", PING_MS))
    server = grpc.aio.server(interceptors=interceptors, options=options)
    register(server)
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    reflection.enable_server_reflection([service, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    port = _bind(server, settings.listen)
    async with AsyncExitStack() as stack:
        if settings.metrics_listen:
            await stack.enter_async_context(serve_metrics(settings.metrics_listen, registry))
        try:
            await server.start()
            for name in ("", service):
                await status.set(name, health_pb2.HealthCheckResponse.SERVING)
            yield port
        finally:
            await status.enter_graceful_shutdown()
            await server.stop(settings.drain_seconds)


def _bind(server: grpc.aio.Server, address: str) -> int:
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise ListenError(address) from error


def message_limits(settings: ServerSettings) -> Sequence[tuple[str, int]]:
    """Return the channel arguments that hold messages to `settings.max_message_bytes`, for servers and channels."""
    limit = settings.max_message_bytes
    return [("grpc.max_receive_message_length", limit), ("grpc.max_send_message_length", limit)]


async def wait_for_signal() -> None:
    """Wait for SIGTERM or SIGINT; an interrupt that the process was started to ignore stays ignored."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # ignored: a script's background command
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    await stop.wait()
