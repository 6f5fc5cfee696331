"""The gateway's ports: peers in memory, and the services behind their APIs."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services.common.content import ContentType
from services.common.rpc.client import InProcessStub
from services.common.vectors import Metric
from services.embedder.settings import EmbedderSettings
from services.embedder.wiring import embedder_servicer
from services.gateway.adapters.embedder import GrpcEmbedder
from services.gateway.adapters.search import GrpcIndex
from services.gateway.adapters.store import GrpcStore
from services.gateway.core.embedder import Model
from services.search.settings import SearchSettings
from services.search.wiring import search_servicer
from services.store.settings import StoreSettings
from services.store.wiring import store_servicer
from tests.contract.gateway_peers import MODEL, EmbedderContract, IndexContract, PeerPorts, StoreContract
from tests.support.gateway_peers import MemoryEmbedder, MemoryIndex, MemoryStore


class TestMemory(EmbedderContract, StoreContract, IndexContract):
    @pytest.fixture
    async def peers(self) -> PeerPorts:
        model = Model(MODEL, 8, Metric.COSINE, (ContentType.IMAGE, ContentType.TEXT), "p/1")
        store = MemoryStore()
        return PeerPorts(MemoryEmbedder([model]), store, MemoryIndex(store))


class TestServices(EmbedderContract, StoreContract, IndexContract):
    @pytest.fixture
    async def peers(self, tmp_path: Path) -> AsyncIterator[PeerPorts]:
        store_settings = StoreSettings(directory=tmp_path, rows="memory", media="memory")
        async with AsyncExitStack() as stack:
            embedder = await stack.enter_async_context(embedder_servicer(EmbedderSettings(runtime="memory")))
            store = InProcessStub(await stack.enter_async_context(store_servicer(store_settings)))
            search = await stack.enter_async_context(search_servicer(SearchSettings(engine="memory"), store=store))
            yield PeerPorts(GrpcEmbedder(InProcessStub(embedder)), GrpcStore(store), GrpcIndex(InProcessStub(search)))
