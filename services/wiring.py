"""All four services in one process: they call each other directly, and each serves gRPC on its own port."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry

from medley.v1 import (
    embedder_service_pb2_grpc,
    gateway_service_pb2_grpc,
    search_service_pb2_grpc,
    store_service_pb2_grpc,
)
from services.common.concurrency.tasks import task_group
from services.common.rpc.client import InProcessStub
from services.common.rpc.server import run_server
from services.common.settings import ServerSettings
from services.embedder.wiring import embedder_servicer
from services.gateway.peers import Peers
from services.gateway.wiring import gateway_servicer
from services.search.wiring import search_servicer
from services.settings import SuiteSettings
from services.store.wiring import store_servicer

Entered = TypeVar("Entered")


@dataclass(frozen=True, slots=True)
class Service:
    """A running service: a stub that calls it directly, and its gRPC address."""

    stub: InProcessStub
    address: str


@asynccontextmanager
async def suite(settings: SuiteSettings) -> AsyncIterator[dict[str, str]]:
    """Run the services while the block runs; yield their addresses by name.

    They start concurrently as far as their dependencies allow, and stop one by one, each before those it calls.
    """
    async with task_group() as group:
        store = BackgroundContext(_store(settings), group)
        embedder = BackgroundContext(_embedder(settings), group)
        search = BackgroundContext(_search(settings, await store.value()), group)
        gateway = BackgroundContext(
            _gateway(settings, await embedder.value(), await store.value(), await search.value()), group
        )
        services = {"store": store, "embedder": embedder, "search": search, "gateway": gateway}
        yield {name: (await service.value()).address for name, service in services.items()}
        for service in (gateway, search, embedder, store):
            await service.close()


class BackgroundContext(Generic[Entered]):
    """A context manager entered and left by its own task, so that several start concurrently and stop one by one."""

    def __init__(self, manager: AbstractAsyncContextManager[Entered], group: asyncio.TaskGroup) -> None:
        self._value: asyncio.Future[Entered] = asyncio.get_running_loop().create_future()
        self._close = asyncio.Event()
        self._task = group.create_task(self._hold(manager))

    async def value(self) -> Entered:
        """Wait until the manager is entered, and return its value."""
        return await asyncio.shield(self._value)

    async def close(self) -> None:
        """Leave the manager, and wait until that is done."""
        self._close.set()
        await asyncio.wait([self._task])

    async def _hold(self, manager: AbstractAsyncContextManager[Entered]) -> None:
        async with manager as value:
            self._value.set_result(value)
            await self._close.wait()


def _store(settings: SuiteSettings) -> AbstractAsyncContextManager[Service]:
    add = store_service_pb2_grpc.add_StoreServiceServicer_to_server
    return _serve(settings.store, "medley.v1.StoreService", store_servicer(settings.store), add)


def _embedder(settings: SuiteSettings) -> AbstractAsyncContextManager[Service]:
    add = embedder_service_pb2_grpc.add_EmbedderServiceServicer_to_server
    return _serve(settings.embedder, "medley.v1.EmbedderService", embedder_servicer(settings.embedder), add)


def _search(settings: SuiteSettings, store: Service) -> AbstractAsyncContextManager[Service]:
    add = search_service_pb2_grpc.add_SearchServiceServicer_to_server
    metrics = CollectorRegistry() if settings.search.metrics_listen else None
    servicer = search_servicer(settings.search_settings, store=store.stub, metrics=metrics)
    return _serve(settings.search, "medley.v1.SearchService", servicer, add, metrics)


def _gateway(
    settings: SuiteSettings, embedder: Service, store: Service, search: Service
) -> AbstractAsyncContextManager[Service]:
    add = gateway_service_pb2_grpc.add_GatewayServiceServicer_to_server
    servicer = gateway_servicer(settings.gateway, Peers(embedder.stub, store.stub, search.stub))
    return _serve(settings.gateway, "medley.v1.GatewayService", servicer, add)


@asynccontextmanager
async def _serve(
    settings: ServerSettings,
    name: str,
    manager: AbstractAsyncContextManager[Any],
    add: Callable[..., None],
    metrics: CollectorRegistry | None = None,
) -> AsyncIterator[Service]:
    async with manager as servicer, run_server(settings, name, partial(add, servicer), metrics) as port:
        host = settings.listen.rpartition(":")[0]
        yield Service(InProcessStub(servicer), f"{host}:{port}")
