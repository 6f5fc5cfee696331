"""Which parts make a gateway: the only module that names adapters."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from medley.v1 import embedder_service_pb2_grpc, search_service_pb2_grpc, store_service_pb2_grpc
from services.common.concurrency.limiter import ConcurrencyLimiter
from services.common.rpc.server import message_limits
from services.gateway.adapters.embedder import GrpcEmbedder
from services.gateway.adapters.search import GrpcIndex
from services.gateway.adapters.store_maintenance import GrpcMaintenanceStore
from services.gateway.core.collection_factory import CollectionFactory
from services.gateway.core.metadata_cache import MetadataCache
from services.gateway.ingest.batcher import BatchLimits
from services.gateway.ingest.item_encoder import ItemEmbedder
from services.gateway.ingest.pipeline import IngestLimits, IngestPipeline, Stores
from services.gateway.ingest.updater import Updater
from services.gateway.maintenance.erasure import Erasure
from services.gateway.maintenance.index_check import IndexCheck
from services.gateway.maintenance.integrity_check import IntegrityCheck
from services.gateway.maintenance.repair import Repairer
from services.gateway.maintenance.restore import Restore
from services.gateway.maintenance.status import StatusService
from services.gateway.peers import Peers
from services.gateway.search.searcher import Searcher
from services.gateway.servicer import GatewayServicer, Handlers
from services.gateway.settings import GatewaySettings
from services.gateway.store_proxy import StoreProxy

LONGEST_RECONNECT_MILLISECONDS = 1000


@asynccontextmanager
async def gateway_servicer(
    settings: GatewaySettings, neighbours: Peers | None = None
) -> AsyncIterator[GatewayServicer]:
    """Build the service, hand it over, release what it holds. Without `neighbours` it calls those of its settings."""
    if neighbours is not None:
        yield _servicer(settings, neighbours)
        return
    async with (
        _channel(settings, settings.embedder_address) as embedder,
        _channel(settings, settings.store_address) as store,
        _channel(settings, settings.search_address) as search,
    ):
        yield _servicer(
            settings,
            Peers(
                embedder_service_pb2_grpc.EmbedderServiceStub(embedder),
                store_service_pb2_grpc.StoreServiceStub(store),
                search_service_pb2_grpc.SearchServiceStub(search),
            ),
        )


def _channel(settings: GatewaySettings, address: str) -> grpc.aio.Channel:
    options = [
        *message_limits(settings),
        ("grpc.lb_policy_name", "round_robin"),
        ("grpc.max_reconnect_backoff_ms", LONGEST_RECONNECT_MILLISECONDS),
    ]
    return grpc.aio.insecure_channel(address, options=options)


def _servicer(settings: GatewaySettings, neighbours: Peers) -> GatewayServicer:
    embedder, store = GrpcEmbedder(neighbours.embedder), GrpcMaintenanceStore(neighbours.store)
    index = GrpcIndex(neighbours.search)
    catalogue = MetadataCache(store, embedder, settings.cache_seconds)
    patient = ItemEmbedder(embedder, settings.retry_seconds, settings.inputs_in_flight)
    prompt = ItemEmbedder(embedder, 0.0, settings.inputs_in_flight)  # who changes one item is told at once
    updater = Updater(catalogue, prompt, store, store, settings.max_media_bytes)
    repairer = Repairer(catalogue, patient, updater, store, store, max_media_bytes=settings.max_media_bytes)
    searches = ConcurrencyLimiter("searches", settings.max_searches)
    ingests = ConcurrencyLimiter("ingests", settings.max_ingests)
    return GatewayServicer(
        Handlers(
            founder=CollectionFactory(store, embedder),
            ingester=IngestPipeline(catalogue, patient, Stores(rows=store, media=store), _pace(settings), ingests),
            updater=updater,
            searcher=Searcher(catalogue, embedder, index, store, searches),
            store=StoreProxy(neighbours.store),
            status=StatusService(embedder, store, index),
            check=IntegrityCheck(store, embedder, IndexCheck(store, index), repairer),
            restore=Restore(catalogue, store),
            erasure=Erasure(store, index),
        )
    )


def _pace(settings: GatewaySettings) -> IngestLimits:
    return IngestLimits(
        batch=BatchLimits(settings.batch_items, settings.batch_bytes, settings.batch_seconds),
        batches=settings.batches_in_flight,
        items=settings.items_in_flight,
        bytes=settings.bytes_in_flight,
        max_media_bytes=settings.max_media_bytes,
        retry_seconds=settings.retry_seconds,
    )
