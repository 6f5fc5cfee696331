"""A service whose engine cannot be had does not start, and says what to install."""

import sys
from collections.abc import AsyncIterator

import numpy as np
import pytest

from medley.v1 import search_service_pb2 as pb
from medley.v1 import vector_pb2
from services.common.errors import ServiceUnavailableError
from services.common.versions import Version
from services.search.core.errors import IndexTooLargeError
from services.search.servicer import SearchServicer
from services.search.settings import SearchSettings
from services.search.wiring import search_servicer_over
from tests.support.change_feed import MemoryChangeFeed
from tests.unit.search.feeds import FLAT, PHOTOS, batch


async def started(**settings: object) -> None:
    chosen = SearchSettings.model_validate({"warm_seconds": 0, **settings})
    async with search_servicer_over(chosen, MemoryChangeFeed()):
        pass


@pytest.mark.parametrize("engine", ["memory", "faiss"])
async def test_engines_for_processors_are_there(engine: str) -> None:
    await started(engine=engine)


async def test_without_torch_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("device", "scan", "vectors", "vector_index"):
        monkeypatch.delitem(sys.modules, f"services.search.engines.torch.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ServiceUnavailableError, match=r"pip install 'medley-server\[torch\]'"):
        await started(engine="torch", device="cpu")


async def test_without_faiss_for_gpus_its_extra_is_named() -> None:
    faiss = pytest.importorskip("faiss")
    if hasattr(faiss, "StandardGpuResources"):
        pytest.skip("the package for GPUs is installed")
    with pytest.raises(ServiceUnavailableError, match=r"pip install 'medley-server\[gpu\]'"):
        await started(engine="faiss-gpu", gpu_memory_bytes=2**30)


async def test_a_device_that_is_not_there_is_named() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    number = torch.cuda.device_count()
    with pytest.raises(ServiceUnavailableError, match=f"cuda:{number}"):
        await started(engine="torch", device=f"cuda:{number}")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "mps"])
def test_a_device_of_another_kind_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match="device"):
        SearchSettings(device=device)


@pytest.fixture
async def on_a_device() -> AsyncIterator[tuple[SearchServicer, MemoryChangeFeed]]:
    pytest.importorskip("torch", reason="needs the extra torch")
    store = MemoryChangeFeed()
    store.create(PHOTOS, [FLAT])
    settings = SearchSettings(engine="torch", device="cpu", gpu_memory_bytes=52 * 2**20, wait_seconds=30)
    async with search_servicer_over(settings, store) as servicer:
        yield servicer, store


def search_request(version: Version) -> pb.SearchIndexRequest:
    vector = vector_pb2.Vector(float32_le=np.zeros(2, "<f4").tobytes())
    return pb.SearchIndexRequest(collection=PHOTOS, space="flat", vector=vector, top_k=3, version=str(version))


async def test_a_service_searches_on_a_device(on_a_device: tuple[SearchServicer, MemoryChangeFeed]) -> None:
    servicer, store = on_a_device
    version = store.commit(PHOTOS, batch({f"item-{number:04}": number % 1000 for number in range(3000)}))
    response = await servicer.SearchIndex(search_request(version), None)  # type: ignore[arg-type]  # no call, no context
    assert [(hit.id, hit.score) for hit in response.hits] == [(f"item-{number}000", 0.0) for number in range(3)]


async def test_a_service_says_when_its_device_is_full(on_a_device: tuple[SearchServicer, MemoryChangeFeed]) -> None:
    servicer, store = on_a_device
    version = store.commit(PHOTOS, batch({f"item-{number}": number for number in range(600_000)}))
    with pytest.raises(IndexTooLargeError, match=r"bytes more on cpu, which has 4,\d+,\d+ left"):
        await servicer.SearchIndex(search_request(version), None)  # type: ignore[arg-type]
