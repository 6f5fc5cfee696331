"""A pool of Triton servers: health of each model on each server, load balancing and failover."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from services.common.concurrency.dynamic_batcher import BatchPolicy
from services.common.concurrency.tasks import background_tasks
from services.common.deadlines import remaining_seconds
from services.common.errors import DeadlineError, OverloadedError, ServiceError, ServiceUnavailableError
from services.common.vectors import Matrix
from services.embedder.adapters.triton.client import (
    DeadBackendError,
    ModelMissingError,
    NotExecutedError,
    TritonClient,
)
from services.embedder.adapters.triton.endpoint import Endpoint, ExpectedModel, Timeouts
from services.embedder.core.errors import ModelFileError


class Pool:
    """The endpoints of a set of servers: each of `models` on each of `clients`."""

    def __init__(
        self, clients: Sequence[TritonClient], models: Sequence[ExpectedModel], timeouts: Timeouts, *, reload: bool
    ) -> None:
        """With `reload`, a model whose backend is dead is unloaded and loaded."""
        self._clients = clients
        self._models = {model.served.name: model for model in models}
        self._endpoints = {
            name: [Endpoint(client, model, timeouts, reload=reload) for client in clients]
            for name, model in self._models.items()
        }
        self._timeouts = timeouts
        self._checked = asyncio.Event()

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        """Watch the endpoints while the block runs; close the connections after it."""
        endpoints = [endpoint for endpoints in self._endpoints.values() for endpoint in endpoints]
        try:
            async with background_tasks(*(endpoint.watch(self._checked.set) for endpoint in endpoints)):
                yield
        finally:
            for client in self._clients:
                await client.close()

    async def until_ready(self, model: str) -> None:
        """Wait until `model` is ready on a server.

        Raises:
            ModelFileError: no server serves it, and at least one has none or another model under that name.
            ServiceUnavailableError: no server is ready in time.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(remaining_seconds(self._timeouts.start)):
                while not self._ready(model) and len(self._mismatches(model)) < len(self._endpoints[model]):
                    self._checked.clear()
                    await self._checked.wait()
        if not self._ready(model):
            raise next(iter(self._mismatches(model)), self._unavailable(model))

    def ever_ready(self, model: str) -> bool:
        """Return whether `model` has been ready on any server at any time."""
        return any(endpoint.ever_ready for endpoint in self._endpoints[model])

    def policy(self, model: str) -> BatchPolicy:
        """Return how requests for `model` are batched: on each server one runs per instance, and one more is queued."""
        ready = [endpoint.metadata for endpoint in self._ready(model) if endpoint.metadata]
        max_batch = min((metadata.max_batch for metadata in ready), default=1)
        in_flight = sum(metadata.instances + 1 for metadata in ready)
        return BatchPolicy(min(max_batch, self._models[model].inputs.max_batch), max(1, in_flight))

    async def infer(self, model: str, elements: Sequence[Any], seconds: float) -> Matrix:
        """Return the vectors of `elements` from the least busy server, or another if it did not execute the request.

        Raises:
            OverloadedError: the queues of all servers are full.
            DeadlineError: `seconds` passed.
            ServiceUnavailableError: no server is ready, or the connection broke during the request.
        """
        deadline = time.monotonic() + seconds
        last: ServiceError | None = None
        for endpoint in sorted(self._ready(model), key=lambda endpoint: endpoint.client.outstanding):
            if endpoint.metadata is None:  # no longer ready since the list was made
                continue
            try:
                return await endpoint.infer(elements, deadline - time.monotonic())
            except OverloadedError as error:
                last = error
            except (NotExecutedError, DeadBackendError, ModelMissingError) as error:
                endpoint.mark_unready(error)
                endpoint.suspect()
                last = error
            except (ServiceUnavailableError, DeadlineError):
                endpoint.suspect()
                raise
        raise last or self._unavailable(model)

    def _ready(self, model: str) -> list[Endpoint]:
        return [endpoint for endpoint in self._endpoints[model] if endpoint.metadata]

    def _mismatches(self, model: str) -> list[ModelFileError]:
        """Return the errors of servers whose model is not the expected one; unreachable servers are not included."""
        errors = (endpoint.error for endpoint in self._endpoints[model])
        return [error for error in errors if isinstance(error, ModelFileError)]

    def _unavailable(self, model: str) -> ServiceUnavailableError:
        reasons = "; ".join(
            str(endpoint.error or f"{endpoint.client.address} not checked yet") for endpoint in self._endpoints[model]
        )
        return ServiceUnavailableError("triton", f"has no server for {model}: {reasons}")
