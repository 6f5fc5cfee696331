"""A model at a Triton server: whether it may be asked, and why not.

It is ready once its signature, its fingerprint and its golden vectors are those of the catalog. From then on a canary,
one golden input at intervals, tells whether it still computes: a server whose Python process died says that it is ready
all the same. A model that fails is examined anew at the same intervals, and is ready again when it passes.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from services.common.errors import DeadlineError, OverloadedError, ServiceError, ServiceUnavailableError
from services.common.vectors import Matrix
from services.embedder.adapters.triton.client import DeadBackendError, ModelCard, ModelMissingError, TritonClient
from services.embedder.adapters.triton.golden import Golden
from services.embedder.adapters.triton.inputs import RowInputBuilder, TextInputBuilder
from services.embedder.adapters.triton.layout import FINGERPRINT, GOLDEN, VECTOR, ServedTower
from services.embedder.core.errors import ModelFileError

log = logging.getLogger(__name__)

EXAMINE_SECONDS = 10.0
"""Time a server has to answer each question before it is asked for vectors: it may just have started."""

RELOAD_SECONDS = 60.0
"""Time a server has to unload a model, and to load it: large ones take long."""

RELOAD_INTERVAL_SECONDS = 30.0
"""Least time between two reloads of a model: one that dies at once must not keep its server busy."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long things may take, in seconds."""

    start: float
    """Until a server answers, when the embedder starts."""
    call: float
    """A request, where the caller sets no deadline."""
    canary: float
    canary_interval: float


@dataclass(frozen=True, slots=True)
class ExpectedModel:
    """A Triton model as it must be: its tower, what builds its inputs, and the fingerprint of its catalogue's model."""

    served: ServedTower
    inputs: TextInputBuilder | RowInputBuilder
    fingerprint: str

    @property
    def dimensions(self) -> int:
        """Length of its vectors."""
        return self.served.tower.dimensions


class Endpoint:
    """A model at the server that `client` asks."""

    def __init__(self, client: TritonClient, expected: ExpectedModel, timeouts: Timeouts, *, reload: bool) -> None:
        """`reload` says whether to have the server load the model anew when its backend is dead."""
        self.client = client
        self.card: ModelCard | None = None
        """What the server says of the model; None while it is not ready."""
        self.error: ServiceError | None = None
        """Why it is not ready."""
        self._expected = expected
        self._name = expected.served.name
        self._timeouts = timeouts
        self._reload = reload
        self._golden: Golden | None = None
        self._suspect = asyncio.Event()
        self._reloaded_at = float("-inf")
        self._unloaded = False  # by us, and not loaded since

    @property
    def ever_ready(self) -> bool:
        """Whether it was ready at any time."""
        return self._golden is not None

    async def infer(self, elements: Sequence[Any], seconds: float) -> Matrix:
        """Return the vectors of `elements` by a model that is ready; raises as `TritonClient.infer`."""
        assert self.card is not None
        return await self._infer(self.card, elements, seconds)

    def suspect(self) -> None:
        """Have it examined at once."""
        self._suspect.set()

    def mark_unready(self, error: ServiceError) -> None:
        """Let it not be asked until it has passed an examination."""
        if self.card or str(error) != str(self.error):
            log.warning("triton at %s does not serve %s: %s", self.client.address, self._name, error)
        self.card, self.error = None, error

    async def watch(self, examined: Callable[[], object]) -> None:
        """Examine it at intervals, and when it is suspected; call `examined` each time."""
        while True:
            self._suspect.clear()
            await self._examine()
            examined()
            try:
                async with asyncio.timeout(self._timeouts.canary_interval):
                    await self._suspect.wait()
                    await asyncio.sleep(self._timeouts.canary_interval / 10)  # many callers suspect it at a time
            except TimeoutError:
                pass

    async def _examine(self) -> None:
        answered = self.client.answered[self._name]
        try:
            await (self._check_canary(self.card) if self.card else self._admit())
        except OverloadedError:
            pass  # a full queue is one that is served
        except DeadlineError as error:
            if self.client.answered[self._name] == answered:  # else it is only busy
                self.mark_unready(error)
                self.client.abandon(self._name)
        except ServiceError as error:
            self.mark_unready(error)
            if self._reload and (self._unloaded or isinstance(error, DeadBackendError)):
                await self._load_anew()
        except Exception as error:  # an unexpected error marks the endpoint unready; watching goes on
            log.exception("cannot examine %s at %s", self._name, self.client.address)
            self.mark_unready(ServiceUnavailableError("triton", f"at {self.client.address}: {error!r}"))

    async def _check_canary(self, card: ModelCard) -> None:
        """Ask for one golden vector as often as there are copies, which take turns."""
        assert self._golden is not None
        for _ in range(card.copies):
            await self._compare(card, self._golden, 1, self._timeouts.canary)

    async def _admit(self) -> None:
        card = await self._read_card()
        golden = self._check_card(card)
        for _ in range(card.copies):
            await self._compare(card, golden, len(golden.vectors), EXAMINE_SECONDS)
        self.card, self._golden, self.error = card, golden, None
        log.info("triton at %s serves %s", self.client.address, self._name)

    async def _read_card(self) -> ModelCard:
        try:
            return await self.client.card(self._name, EXAMINE_SECONDS)
        except ModelMissingError as error:
            if await self.client.ready(EXAMINE_SECONDS):
                raise self._mismatch("it is not there") from error
            raise

    def _check_card(self, card: ModelCard) -> Golden:
        """Return the golden vectors on `card`, which has to be that of the expected model."""
        expected = self._expected
        if problem := expected.inputs.mismatch(card.inputs):
            raise self._mismatch(problem)
        output = ("FP32", (expected.dimensions,))
        if card.outputs.get(VECTOR) != output:
            raise self._mismatch(f"expected an output {VECTOR} {output}, it has {dict(card.outputs)}")
        fingerprint = card.parameters.get(FINGERPRINT, "")
        if fingerprint != expected.fingerprint:
            raise self._mismatch(f"expected fingerprint {expected.fingerprint!r}, it has {fingerprint!r}")
        try:
            golden = Golden.from_text(card.parameters.get(GOLDEN, ""))
        except ValueError as error:
            raise self._mismatch(str(error)) from error
        if golden.vectors.shape != (len(expected.inputs.golden), expected.dimensions):
            raise self._mismatch(f"its golden vectors have shape {golden.vectors.shape}")
        return golden

    async def _compare(self, card: ModelCard, golden: Golden, count: int, seconds: float) -> None:
        """Compare what it makes of the first `count` golden inputs with their vectors."""
        inputs = self._expected.inputs
        size = min(card.max_batch, inputs.max_batch)
        for start in range(0, count, size):
            batch = inputs.golden[start : min(count, start + size)]
            vectors = await self._infer(card, batch, seconds)
            cosines = (vectors * golden.vectors[start : start + len(batch)]).sum(axis=1)
            if cosines.min() < golden.least_cosine:
                problem = f"a golden vector has cosine {cosines.min():.5f}, {golden.least_cosine} is the least"
                raise self._mismatch(problem)

    async def _infer(self, card: ModelCard, elements: Sequence[Any], seconds: float) -> Matrix:
        tensors = await self._expected.inputs.build(elements, card.inputs)
        return await self.client.infer(self._name, tensors, len(elements), self._expected.dimensions, seconds)

    async def _load_anew(self) -> None:
        """Unload and load the model, the one way to a new backend process, but not all the time."""
        if time.monotonic() < self._reloaded_at + RELOAD_INTERVAL_SECONDS:
            return
        log.warning("triton at %s is told to load %s anew", self.client.address, self._name)
        try:
            await self.client.unload(self._name, RELOAD_SECONDS)
            self._unloaded = True
            await self.client.load(self._name, RELOAD_SECONDS)
            self._unloaded, self._reloaded_at = False, time.monotonic()
            await self._admit()
        except ServiceError as error:
            self.mark_unready(error)
            if not self._unloaded:  # the server may not allow it: try again later
                self._reloaded_at = time.monotonic()

    def _mismatch(self, problem: str) -> ModelFileError:
        return ModelFileError(f"model {self._name!r} of Triton at {self.client.address}", problem)
