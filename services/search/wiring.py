"""Which parts make a search service: the only module that names adapters."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager

import grpc

from medley.v1 import store_service_pb2_grpc
from services.common.neighbours import LocalStub
from services.common.server import message_limits
from services.search.adapters.store_feed import StoreChangeFeed
from services.search.feed import ChangeFeed, Space, Table
from services.search.followers import Followers
from services.search.index import VectorIndex
from services.search.local_collection import LocalCollectionIndex
from services.search.searcher import Searcher
from services.search.servicer import SearchServicer
from services.search.settings import SearchSettings

StoreStub = store_service_pb2_grpc.StoreServiceStub | LocalStub

_CHANNEL_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 310_000),  # a server takes pings every 5 minutes
    ("grpc.keepalive_timeout_ms", 20_000),
]


@asynccontextmanager
async def search_servicer(settings: SearchSettings, store: StoreStub | None = None) -> AsyncIterator[SearchServicer]:
    """Build the service, hand it over, release what it holds; without `store`, call the one at `store_address`."""
    async with AsyncExitStack() as stack:
        stub = store or store_service_pb2_grpc.StoreServiceStub(await stack.enter_async_context(_channel(settings)))
        yield await stack.enter_async_context(search_servicer_over(settings, StoreChangeFeed(stub)))


@asynccontextmanager
async def search_servicer_over(settings: SearchSettings, feed: ChangeFeed) -> AsyncIterator[SearchServicer]:
    """Build the service over any feed."""
    followers = Followers(feed, lambda table: _collection_index(settings, table))
    with ThreadPoolExecutor(settings.threads, "search") as pool:
        async with followers.following(settings.discover_seconds, settings.warm_seconds):
            yield SearchServicer(
                Searcher(followers, pool, max_searches=settings.max_searches, wait_seconds=settings.wait_seconds)
            )


def _channel(settings: SearchSettings) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(settings.store_address, options=[*message_limits(settings), *_CHANNEL_OPTIONS])


def _collection_index(settings: SearchSettings, table: Table) -> LocalCollectionIndex:
    return LocalCollectionIndex(table.spaces, lambda space: _index(settings, space))


def _index(settings: SearchSettings, space: Space) -> VectorIndex:
    match settings.engine:
        case "memory":
            from services.search.adapters.memory import MemoryIndex

            return MemoryIndex(space.dimensions, space.metric)
        case "faiss":
            from services.search.adapters.faiss import FaissIndex

            return FaissIndex(space.dimensions, space.metric, settings.threads_per_search)
