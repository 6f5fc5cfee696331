"""A model on a Triton server, and whether it is ready for requests.

An endpoint is ready once its signature, fingerprint and golden vectors match the catalog. From then on a canary request
with one golden input runs periodically, because a server whose Python process has died still reports that it is ready.
An endpoint that fails is checked again at the same interval, and is ready again when it passes.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from services.common.errors import DeadlineError, OverloadedError, ServiceError, ServiceUnavailableError
from services.common.vectors import Matrix
from services.embedder.adapters.triton.client import DeadBackendError, ModelMetadata, ModelMissingError, TritonClient
from services.embedder.adapters.triton.golden import Golden
from services.embedder.adapters.triton.inputs import RowInputBuilder, TextInputBuilder
from services.embedder.adapters.triton.layout import FINGERPRINT, GOLDEN, VECTOR, ServedTower
from services.embedder.core.errors import ModelFileError

log = logging.getLogger(__name__)

CHECK_SECONDS = 10.0
"""Timeout of each request of a full check; long, because the server may just have started."""

RELOAD_SECONDS = 60.0
"""Timeout of unloading, and of loading a model."""

RELOAD_INTERVAL_SECONDS = 30.0
"""Minimum time between two reloads of a model, so that one that dies immediately does not keep its server busy."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts and intervals, in seconds."""

    start: float
    """Until a model is ready on a server, when the embedder starts."""
    call: float
    """Of a request whose caller sets no deadline."""
    canary: float
    canary_interval: float


@dataclass(frozen=True, slots=True)
class ExpectedModel:
    """The Triton model that the catalog expects: its tower, input builder and fingerprint."""

    served: ServedTower
    inputs: TextInputBuilder | RowInputBuilder
    fingerprint: str

    @property
    def dimensions(self) -> int:
        """Length of its vectors."""
        return self.served.tower.dimensions


class Endpoint:
    """A model on the server of `client`."""

    def __init__(self, client: TritonClient, expected: ExpectedModel, timeouts: Timeouts, *, reload: bool) -> None:
        """With `reload`, the model is unloaded and loaded when its backend is dead."""
        self.client = client
        self.metadata: ModelMetadata | None = None
        """Metadata of the model; None while it is not ready."""
        self.error: ServiceError | None = None
        """Why it is not ready."""
        self._expected = expected
        self._name = expected.served.name
        self._timeouts = timeouts
        self._reload = reload
        self._golden: Golden | None = None
        self._suspect = asyncio.Event()
        self._reloaded_at = float("-inf")
        self._unloaded = False  # unloaded by this object and not loaded again

    @property
    def ever_ready(self) -> bool:
        """Whether it has been ready at any time."""
        return self._golden is not None

    async def infer(self, elements: Sequence[Any], seconds: float) -> Matrix:
        """Return the vectors of `elements`; the endpoint must be ready. Raises as `TritonClient.infer`."""
        assert self.metadata is not None
        return await self._infer(self.metadata, elements, seconds)

    def suspect(self) -> None:
        """Trigger a check now."""
        self._suspect.set()

    def mark_unready(self, error: ServiceError) -> None:
        """Mark it as not ready until it passes a full check."""
        if self.metadata or str(error) != str(self.error):
            log.warning("triton at %s does not serve %s: %s", self.client.address, self._name, error)
        self.metadata, self.error = None, error

    async def watch(self, on_check: Callable[[], object]) -> None:
        """Check it periodically and when it is suspected; call `on_check` after each check."""
        while True:
            self._suspect.clear()
            await self._check()
            on_check()
            try:
                async with asyncio.timeout(self._timeouts.canary_interval):
                    await self._suspect.wait()
                    await asyncio.sleep(
                        self._timeouts.canary_interval / 10
                    )  # many callers may suspect it at the same time
            except TimeoutError:
                pass

    async def _check(self) -> None:
        answered = self.client.answered[self._name]
        try:
            await (self._check_canary(self.metadata) if self.metadata else self._admit())
        except OverloadedError:
            pass  # a full queue shows that the model is being served
        except DeadlineError as error:
            if self.client.answered[self._name] == answered:  # else it is busy, not dead
                self.mark_unready(error)
                self.client.abandon(self._name)
        except ServiceError as error:
            self.mark_unready(error)
            if self._reload and (self._unloaded or isinstance(error, DeadBackendError)):
                await self._reload_model()
        except Exception as error:  # an unexpected error marks the endpoint unready, and watching continues
            log.exception("cannot check %s at %s", self._name, self.client.address)
            self.mark_unready(ServiceUnavailableError("triton", f"at {self.client.address}: {error!r}"))

    async def _check_canary(self, metadata: ModelMetadata) -> None:
        """Request one golden vector once per instance; Triton alternates between instances."""
        assert self._golden is not None
        for _ in range(metadata.instances):
            await self._compare(metadata, self._golden, 1, self._timeouts.canary)

    async def _admit(self) -> None:
        metadata = await self._read_metadata()
        golden = self._check_metadata(metadata)
        for _ in range(metadata.instances):
            await self._compare(metadata, golden, len(golden.vectors), CHECK_SECONDS)
        self.metadata, self._golden, self.error = metadata, golden, None
        log.info("triton at %s serves %s", self.client.address, self._name)

    async def _read_metadata(self) -> ModelMetadata:
        try:
            return await self.client.metadata(self._name, CHECK_SECONDS)
        except ModelMissingError as error:
            if await self.client.ready(CHECK_SECONDS):
                raise self._mismatch("the server does not have it") from error
            raise

    def _check_metadata(self, metadata: ModelMetadata) -> Golden:
        """Check `metadata` against the expected model, and return its golden vectors."""
        expected = self._expected
        if problem := expected.inputs.mismatch(metadata.inputs):
            raise self._mismatch(problem)
        output = ("FP32", (expected.dimensions,))
        if metadata.outputs.get(VECTOR) != output:
            raise self._mismatch(f"expected an output {VECTOR} {output}, it has {dict(metadata.outputs)}")
        fingerprint = metadata.parameters.get(FINGERPRINT, "")
        if fingerprint != expected.fingerprint:
            raise self._mismatch(f"expected fingerprint {expected.fingerprint!r}, it has {fingerprint!r}")
        try:
            golden = Golden.from_text(metadata.parameters.get(GOLDEN, ""))
        except ValueError as error:
            raise self._mismatch(str(error)) from error
        if golden.vectors.shape != (len(expected.inputs.golden), expected.dimensions):
            raise self._mismatch(f"its golden vectors have shape {golden.vectors.shape}")
        return golden

    async def _compare(self, metadata: ModelMetadata, golden: Golden, count: int, seconds: float) -> None:
        """Compare the vectors of the first `count` golden inputs with the golden vectors."""
        inputs = self._expected.inputs
        size = min(metadata.max_batch, inputs.max_batch)
        for start in range(0, count, size):
            batch = inputs.golden[start : min(count, start + size)]
            vectors = await self._infer(metadata, batch, seconds)
            cosines = (vectors * golden.vectors[start : start + len(batch)]).sum(axis=1)
            if cosines.min() < golden.min_cosine:
                problem = f"a golden vector has cosine {cosines.min():.5f}, {golden.min_cosine} is the minimum"
                raise self._mismatch(problem)

    async def _infer(self, metadata: ModelMetadata, elements: Sequence[Any], seconds: float) -> Matrix:
        tensors = await self._expected.inputs.build(elements, metadata.inputs)
        return await self.client.infer(self._name, tensors, len(elements), self._expected.dimensions, seconds)

    async def _reload_model(self) -> None:
        """Unload and load the model, which starts a new backend process, unless that was done recently."""
        if time.monotonic() < self._reloaded_at + RELOAD_INTERVAL_SECONDS:
            return
        log.warning("triton at %s: reloading %s", self.client.address, self._name)
        try:
            await self.client.unload(self._name, RELOAD_SECONDS)
            self._unloaded = True
            await self.client.load(self._name, RELOAD_SECONDS)
            self._unloaded, self._reloaded_at = False, time.monotonic()
            await self._admit()
        except ServiceError as error:
            self.mark_unready(error)
            if not self._unloaded:  # the server may not allow it; try again later
                self._reloaded_at = time.monotonic()

    def _mismatch(self, problem: str) -> ModelFileError:
        return ModelFileError(f"model {self._name!r} of Triton at {self.client.address}", problem)
