"""Builds a gateway from its parts; the only module that chooses adapters."""

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
from services.gateway.ingest.item_embedder import ItemEmbedder
from services.gateway.ingest.pipeline import IngestLimits, IngestPipeline
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

MAX_RECONNECT_BACKOFF_MILLISECONDS = 1000


@asynccontextmanager
async def gateway_servicer(settings: GatewaySettings, peers: Peers | None = None) -> AsyncIterator[GatewayServicer]:
    """Build the service and close it at exit. Without `peers` it connects to the addresses of its settings."""
    if peers is not None:
        yield _servicer(settings, peers)
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
        ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_BACKOFF_MILLISECONDS),
    ]
    return grpc.aio.insecure_channel(address, options=options)


def _servicer(settings: GatewaySettings, peers: Peers) -> GatewayServicer:
    embedder, store = GrpcEmbedder(peers.embedder), GrpcMaintenanceStore(peers.store)
    index = GrpcIndex(peers.search)
    cache = MetadataCache(store, embedder, settings.cache_seconds)
    item_embedder = ItemEmbedder(embedder, settings.retry_seconds, settings.inputs_in_flight)
    update_embedder = ItemEmbedder(embedder, 0.0, settings.inputs_in_flight)  # single updates are not retried
    updater = Updater(cache, update_embedder, store, store, settings.max_media_bytes)
    repairer = Repairer(cache, item_embedder, updater, store, store, max_media_bytes=settings.max_media_bytes)
    searches = ConcurrencyLimiter("searches", settings.max_searches)
    ingests = ConcurrencyLimiter("ingests", settings.max_ingests)
    return GatewayServicer(
        Handlers(
            collection_factory=CollectionFactory(store, embedder),
            ingest_pipeline=IngestPipeline(cache, item_embedder, store, _ingest_limits(settings), ingests),
            updater=updater,
            searcher=Searcher(cache, embedder, index, store, searches),
            store_proxy=StoreProxy(peers.store),
            status=StatusService(embedder, store, index),
            check=IntegrityCheck(store, embedder, IndexCheck(store, index), repairer),
            restore=Restore(cache, store),
            erasure=Erasure(store, index),
        )
    )


def _ingest_limits(settings: GatewaySettings) -> IngestLimits:
    return IngestLimits(
        batch=BatchLimits(settings.batch_items, settings.batch_bytes, settings.batch_seconds),
        batches=settings.batches_in_flight,
        items=settings.items_in_flight,
        bytes=settings.bytes_in_flight,
        max_media_bytes=settings.max_media_bytes,
        retry_seconds=settings.retry_seconds,
    )
