"""A service whose engine cannot be had does not start, and says what to install."""

import sys

import pytest

from services.common.errors import ServiceUnavailableError
from services.search.adapters.memory_feed import MemoryChangeFeed
from services.search.settings import SearchSettings
from services.search.wiring import search_servicer_over


async def started(**settings: object) -> None:
    chosen = SearchSettings.model_validate({"warm_seconds": 0, **settings})
    async with search_servicer_over(chosen, MemoryChangeFeed()):
        pass


@pytest.mark.parametrize("engine", ["memory", "faiss"])
async def test_engines_for_processors_are_there(engine: str) -> None:
    await started(engine=engine)


async def test_without_torch_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch_device", "torch_index"):
        monkeypatch.delitem(sys.modules, f"services.search.adapters.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ServiceUnavailableError, match=r"pip install 'medley\[torch\]'"):
        await started(engine="torch", device="cpu")


async def test_without_faiss_for_gpus_its_extra_is_named() -> None:
    faiss = pytest.importorskip("faiss")
    if hasattr(faiss, "StandardGpuResources"):
        pytest.skip("the package for GPUs is installed")
    with pytest.raises(ServiceUnavailableError, match=r"pip install 'medley\[gpu\]'"):
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
