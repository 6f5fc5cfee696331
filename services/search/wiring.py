"""Which parts make a search service: the only module that names adapters."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from functools import partial

import grpc
from prometheus_client import CollectorRegistry

from medley.v1 import store_service_pb2_grpc
from services.common.concurrency.executors import BoundedExecutor
from services.common.concurrency.limiter import ConcurrencyLimiter
from services.common.errors import ServiceUnavailableError
from services.common.rpc.client import InProcessStub
from services.common.rpc.server import message_limits
from services.search.adapters.prometheus import IndexCollector, PrometheusMetrics
from services.search.adapters.store_feed import StoreChangeFeed
from services.search.ann.build_scheduler import BuildScheduler
from services.search.ann.manager import BuildContext
from services.search.ann.recall_monitor import RecallMonitor
from services.search.collection.collection import LocalCollectionIndex
from services.search.core.candidate_index import AnnFactory
from services.search.core.change_feed import ChangeFeed, Space, Table
from services.search.core.vector_index import VectorIndex
from services.search.query.batch_search import BatchSearcher
from services.search.query.cursors import Cursors
from services.search.query.dynamic_batching import SearchBatcher
from services.search.query.metrics import Metrics, NoMetrics
from services.search.query.searcher import Searcher
from services.search.replication.replicas import Replicas
from services.search.servicer import SearchServicer
from services.search.settings import SearchSettings
from services.search.snapshots.catalog import SnapshotCatalog
from services.search.snapshots.object_store import SnapshotStore
from services.search.snapshots.repository import MakeIndex, SnapshotRepository
from services.search.snapshots.scheduler import DropSnapshots, Schedule, SnapshotScheduler, no_snapshots

MakeVectorIndex = Callable[[str, Space], VectorIndex]
StoreStub = store_service_pb2_grpc.StoreServiceStub | InProcessStub

_CHANNEL_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 310_000),  # a server takes pings every 5 minutes
    ("grpc.keepalive_timeout_ms", 20_000),
]


@asynccontextmanager
async def search_servicer(
    settings: SearchSettings, store: StoreStub | None = None, metrics: CollectorRegistry | None = None
) -> AsyncIterator[SearchServicer]:
    """Build the service, hand it over, release what it holds; without `store`, call the one at `store_address`.

    Into `metrics` goes what the service tells of its indexes and searches.
    """
    async with AsyncExitStack() as stack:
        stub = store or store_service_pb2_grpc.StoreServiceStub(await stack.enter_async_context(_channel(settings)))
        yield await stack.enter_async_context(search_servicer_over(settings, StoreChangeFeed(stub), metrics))


@asynccontextmanager
async def search_servicer_over(
    settings: SearchSettings, feed: ChangeFeed, metrics: CollectorRegistry | None = None
) -> AsyncIterator[SearchServicer]:
    """Build the service over any feed."""
    async with AsyncExitStack() as stack:
        following = _milvus_replicas if settings.engine == "milvus" else _local_replicas
        replicas, drop_snapshots = await following(settings, feed, stack)
        await stack.enter_async_context(replicas.running(settings.discover_seconds, settings.warm_seconds))
        if metrics is not None:
            metrics.register(IndexCollector(replicas))
        search_metrics = NoMetrics() if metrics is None else PrometheusMetrics(metrics)
        searcher = await stack.enter_async_context(searcher_over(settings, replicas, search_metrics))
        yield SearchServicer(searcher, drop_snapshots)


async def _local_replicas(
    settings: SearchSettings, feed: ChangeFeed, stack: AsyncExitStack
) -> tuple[Replicas, DropSnapshots]:
    """Let indexes be in this process, saved as snapshots where there is a place for them."""
    make_index = _engine(settings)
    context = await stack.enter_async_context(_build_context(settings))

    def collection_index(table: Table) -> LocalCollectionIndex:
        return LocalCollectionIndex(table.spaces, partial(make_index, table.collection), context)

    snapshot_scheduler = await _snapshot_scheduler(settings, collection_index, stack)
    if snapshot_scheduler is None:
        return Replicas(feed, collection_index), no_snapshots
    replicas = Replicas(feed, collection_index, snapshot_scheduler.restore)
    await stack.enter_async_context(snapshot_scheduler.saving(feed, replicas))
    return replicas, snapshot_scheduler.drop


async def _milvus_replicas(
    settings: SearchSettings, feed: ChangeFeed, stack: AsyncExitStack
) -> tuple[Replicas, DropSnapshots]:
    """Let indexes be in Milvus, which keeps them itself."""
    with _needing("milvus"):
        from services.search.engines.milvus.factory import MilvusCollectionFactory
        from services.search.engines.milvus.options import MilvusOptions

    options = MilvusOptions(
        uri=settings.milvus_uri,
        token=settings.milvus_token.get_secret_value(),
        database=settings.milvus_database,
        prefix=settings.milvus_prefix,
        consistency=settings.milvus_consistency,
        seconds=settings.milvus_seconds,
        write_seconds=settings.milvus_write_seconds,
        build_seconds=settings.milvus_build_seconds,
        grace_seconds=settings.milvus_grace_seconds,
        writer=settings.milvus_writer,
        gpu=settings.milvus_gpu,
    )
    collections = stack.enter_context(closing(MilvusCollectionFactory(options)))
    return Replicas(feed, collections.create, collections.restore), collections.erase


@asynccontextmanager
async def _build_context(settings: SearchSettings) -> AsyncIterator[BuildContext]:
    """Have approximate indexes built and watched while the block runs."""
    scheduler, monitor = BuildScheduler(), RecallMonitor(settings.recall_sample_rate)
    async with scheduler.running(), monitor.running():
        yield BuildContext(_ann_factory(settings), scheduler, monitor)


def _ann_factory(settings: SearchSettings) -> AnnFactory:
    if settings.engine == "memory":
        from services.search.engines.memory.candidate_index import MemoryAnnFactory

        return MemoryAnnFactory()
    from services.search.engines.faiss.factory import FaissAnnFactory

    return FaissAnnFactory(search_threads=settings.threads_per_search, build_threads=settings.build_threads)


@asynccontextmanager
async def searcher_over(settings: SearchSettings, replicas: Replicas, metrics: Metrics) -> AsyncIterator[Searcher]:
    """Build the searcher over any indexes."""
    processors = os.cpu_count() or 2
    async with AsyncExitStack() as stack:
        single = await stack.enter_async_context(BoundedExecutor("search", settings.threads or max(2, processors // 2)))
        bulk = await stack.enter_async_context(BoundedExecutor("bulk", settings.bulk_threads or processors))
        cursors = Cursors(bulk, max_cursors=settings.max_cursors, seconds=settings.cursor_seconds)
        stack.callback(cursors.close)
        yield Searcher(
            replicas,
            batcher=SearchBatcher(single, max_batch=settings.max_batch),
            cursors=cursors,
            batch_searcher=BatchSearcher(bulk),
            executor=bulk,
            searches=ConcurrencyLimiter("searches", settings.max_searches),
            batches=ConcurrencyLimiter("batches", settings.max_batch_calls),
            wait_seconds=settings.wait_seconds,
            metrics=metrics,
        )


def _channel(settings: SearchSettings) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(settings.store_address, options=[*message_limits(settings), *_CHANNEL_OPTIONS])


async def _snapshot_scheduler(
    settings: SearchSettings, make_index: MakeIndex, stack: AsyncExitStack
) -> SnapshotScheduler | None:
    store = _snapshot_store(settings, stack)
    if store is None:
        return None
    files = await stack.enter_async_context(BoundedExecutor("snapshot-files", 4))
    snapshots = await stack.enter_async_context(BoundedExecutor("snapshots", 3))
    schedule = Schedule(settings.snapshot_seconds, settings.snapshot_load_seconds, settings.drain_seconds)
    return SnapshotScheduler(SnapshotRepository(SnapshotCatalog(store), files), make_index, snapshots, schedule)


def _snapshot_store(settings: SearchSettings, stack: AsyncExitStack) -> SnapshotStore | None:
    match settings.snapshots:
        case "off":
            return None
        case "folder":
            from services.search.adapters.folder_snapshots import FolderSnapshots

            return FolderSnapshots(settings.snapshots_dir)
        case "s3":
            with _needing("s3"):
                from services.common.s3.bucket import S3Bucket
                from services.search.adapters.s3_snapshots import S3Snapshots

            bucket = S3Bucket(settings.s3_options(connections=8))
            stack.callback(bucket.close)
            return S3Snapshots(bucket)


def _engine(settings: SearchSettings) -> MakeVectorIndex:
    """Return what makes the index of a space, given the collection's name too.

    Raises:
        ServiceUnavailableError: a package or device is missing.
    """
    match settings.engine:
        case "memory":
            from services.search.engines.memory.vector_index import MemoryIndex

            return lambda _, space: MemoryIndex(space.dimensions, space.metric)
        case "faiss":
            from services.search.engines.faiss.vector_index import FaissIndex

            threads = settings.threads_per_search
            return lambda _, space: FaissIndex(
                space.dimensions, space.metric, storage=space.config.scanned, threads=threads
            )
        case "torch":
            return _torch_engine(settings)
        case "faiss-gpu":
            return _faiss_gpu_engine(settings)
        case "milvus":
            raise AssertionError("Milvus holds whole collections")


def _torch_engine(settings: SearchSettings) -> MakeVectorIndex:
    with _needing("torch"):
        from services.search.engines.torch.device import TorchDevice
        from services.search.engines.torch.vector_index import TorchIndex

    device = TorchDevice(settings.device, settings.gpu_memory_bytes)
    return lambda name, space: TorchIndex(space.dimensions, space.metric, device, f"{name}/{space.name}")


def _faiss_gpu_engine(settings: SearchSettings) -> MakeVectorIndex:
    with _needing("gpu"):
        from services.search.engines.faiss.gpu_vector_index import FaissDevice, FaissGpuIndex

        device = FaissDevice(settings.device, settings.gpu_memory_bytes)
    from services.search.engines.faiss.vector_index import FaissIndex

    def make_index(name: str, space: Space) -> FaissGpuIndex:
        host = FaissIndex(space.dimensions, space.metric)
        return FaissGpuIndex(space.dimensions, space.metric, host, device, f"{name}/{space.name}")

    return make_index


@contextmanager
def _needing(extra: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        install = f"cannot be used here ({error}): pip install 'medley-server[{extra}]'"
        raise ServiceUnavailableError(f"the engine of the extra {extra!r}", install) from error
