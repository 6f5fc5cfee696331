"""Real Triton servers for tests; those that need one are skipped where `make triton-server` has not been run."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from services.embedder.adapters.model_folders import read_models
from services.embedder.adapters.triton.encoder import TritonRuntime, triton_runtime
from services.embedder.adapters.triton.endpoint import Timeouts
from services.embedder.settings import BUILT_IN_MODELS
from services.embedder.triton_repository import write_repository
from tests.ports import reserve_port
from tests.waiting import HANG_SECONDS
from tools.triton import Ports, TritonServer, is_installed

needs_triton = pytest.mark.skipif(not is_installed(), reason="no Triton server here: `make triton-server` sets one up")

SHORT = Timeouts(start=HANG_SECONDS, call=60, canary=1.5, canary_interval=0.3)


def triton_server(repository: Path, log: Path) -> TritonServer:
    """Return a server on ports of its own, not started."""
    return TritonServer(repository, log, Ports(reserve_port(), reserve_port(), reserve_port()))


@contextmanager
def triton(folder: Path, *, models: Path = BUILT_IN_MODELS, instances: int = 1) -> Iterator[TritonServer]:
    """Serve `models` from a repository in `folder`; not from within an event loop."""
    write_repository(models, folder / "repository", instances=instances)
    with triton_server(folder / "repository", folder / "server.log") as server:
        yield server


@asynccontextmanager
async def runtime(
    *servers: TritonServer, timeouts: Timeouts = SHORT, reload: bool = False
) -> AsyncIterator[TritonRuntime]:
    """Run the built-in models by `servers`."""
    endpoints = [server.endpoint for server in servers]
    async with triton_runtime(read_models(BUILT_IN_MODELS), endpoints, timeouts, max_batch=32, reload=reload) as made:
        yield made
