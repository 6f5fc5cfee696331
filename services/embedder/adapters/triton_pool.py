"""Several Triton servers: which of them may be asked for which model, and who is asked next.

A server is admitted for a model once its signature, its passport and its golden vectors are those of the catalogue.
From then on a canary, one golden input on a schedule, tells whether it still computes: a server whose Python process
died says that it is ready all the same. Who fails is out, is examined anew on the same schedule, and comes back when it
passes.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from services.common.batching import BatchPolicy
from services.common.deadlines import remaining_seconds
from services.common.errors import DeadlineError, OverloadedError, ServiceError, ServiceUnavailableError
from services.common.vectors import Matrix
from services.embedder.adapters.triton_endpoint import (
    DeadBackendError,
    Endpoint,
    ModelCard,
    ModelMissingError,
    NotExecutedError,
)
from services.embedder.adapters.triton_tensors import RowFeed, TextFeed
from services.embedder.errors import ModelFileError
from services.embedder.triton_repository.golden import Golden
from services.embedder.triton_repository.layout import GOLDEN, PASSPORT, VECTOR, ServedTower

log = logging.getLogger(__name__)

EXAMINATION_SECONDS = 10.0
"""Time a server has to answer each question before it is admitted: it may just have begun."""

RELOAD_SECONDS = 60.0
"""Time a server has to unload a model, and to load it: large ones take long."""

RELOAD_EVERY_SECONDS = 30.0
"""Least time between two reloads of a model: one that dies at once must not keep its server busy."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take, in seconds."""

    start: float
    """Until a server answers, when the embedder starts."""
    call: float
    """A request, where the caller sets no deadline."""
    canary_every: float
    canary_within: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """A Triton model as it must be: its tower, what feeds it, and the passport of its catalogue's model."""

    served: ServedTower
    feed: TextFeed | RowFeed
    passport: str


@dataclass(slots=True)
class _Post:
    """A model at an endpoint."""

    endpoint: Endpoint
    wanted: Wanted
    doubted: asyncio.Event = field(default_factory=asyncio.Event)
    card: ModelCard | None = None
    """None while it is out."""
    golden: Golden | None = None
    refusal: ServiceError | None = None
    """Why it is out."""
    reloaded_at: float = float("-inf")
    unloaded: bool = False
    """Whether it was unloaded from here, and not loaded since."""

    @property
    def name(self) -> str:
        return self.wanted.served.name


class Pool:
    """The endpoints of a set of servers, watched while the context lasts."""

    def __init__(
        self, endpoints: Sequence[Endpoint], wanted: Sequence[Wanted], patience: Patience, *, reload: bool = False
    ) -> None:
        """Watch each model of `wanted` at each of `endpoints`; let a dead one be loaded anew if `reload` says so."""
        self._endpoints = endpoints
        self._posts = {each.served.name: [_Post(endpoint, each) for endpoint in endpoints] for each in wanted}
        self._patience = patience
        self._reload = reload
        self._changed = asyncio.Event()
        self._watches: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        posts = [post for posts in self._posts.values() for post in posts]
        self._watches = [asyncio.create_task(self._watch(post)) for post in posts]
        return self

    async def __aexit__(self, *_: object) -> None:
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        for endpoint in self._endpoints:
            await endpoint.close()

    async def until_ready(self, model: str) -> None:
        """Wait until a server is admitted for `model`.

        Raises:
            ModelFileError: no server serves it, and at least one has another model under that name, or none.
            ServiceUnavailableError: no server answers in time.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(remaining_seconds(self._patience.start)):
                while not self._admitted(model) and len(self._refusals(model)) < len(self._posts[model]):
                    self._changed.clear()
                    await self._changed.wait()
        if not self._admitted(model):
            raise next(iter(self._refusals(model)), self._nobody(model))

    def met(self, model: str) -> bool:
        """Tell whether any server was ever admitted for `model`."""
        return any(post.golden for post in self._posts[model])

    def policy(self, model: str) -> BatchPolicy:
        """Return how requests for `model` are batched: at each server one runs for each copy, and one waits."""
        cards = [post.card for post in self._admitted(model) if post.card]
        max_batch = min((card.max_batch for card in cards), default=1)
        in_flight = sum(card.copies + 1 for card in cards)
        return BatchPolicy(min(max_batch, self._posts[model][0].wanted.feed.together), max(1, in_flight))

    async def vectors(self, model: str, elements: Sequence[Any], seconds: float) -> Matrix:
        """Return the vectors of `elements` by the least busy server; by another one if it did not take them on.

        Raises:
            OverloadedError: the queues of all of them are full.
            DeadlineError: `seconds` passed.
            ServiceUnavailableError: no server can be asked, or the one asked broke off.
        """
        deadline = time.monotonic() + seconds
        last: ServiceError | None = None
        for post in sorted(self._admitted(model), key=lambda post: post.endpoint.outstanding):
            if post.card is None:  # it was taken out while another one was asked
                continue
            try:
                return await _asked(post, post.card, elements, deadline - time.monotonic())
            except OverloadedError as error:
                last = error
            except (NotExecutedError, DeadBackendError, ModelMissingError) as error:
                self._doubt(post, error)
                last = error
            except (ServiceUnavailableError, DeadlineError):
                post.doubted.set()
                raise
        raise last or self._nobody(model)

    def _admitted(self, model: str) -> list[_Post]:
        return [post for post in self._posts[model] if post.card]

    def _refusals(self, model: str) -> list[ModelFileError]:
        """Return why servers have a model other than wanted; one that may yet answer is none of them."""
        reasons = (post.refusal for post in self._posts[model])
        return [reason for reason in reasons if isinstance(reason, ModelFileError)]

    def _nobody(self, model: str) -> ServiceUnavailableError:
        reasons = "; ".join(
            str(post.refusal or f"{post.endpoint.address} not asked yet") for post in self._posts[model]
        )
        return ServiceUnavailableError("triton", f"has no server for {model}: {reasons}")

    def _doubt(self, post: _Post, error: ServiceError) -> None:
        """Take a post out on a caller's word, and have it examined at once."""
        self._take_out(post, error)
        post.doubted.set()

    async def _watch(self, post: _Post) -> None:
        while True:
            post.doubted.clear()
            await self._examine(post)
            self._changed.set()
            try:
                async with asyncio.timeout(self._patience.canary_every):
                    await post.doubted.wait()
                    await asyncio.sleep(self._patience.canary_every / 10)  # doubts come in swarms
            except TimeoutError:
                pass

    async def _examine(self, post: _Post) -> None:
        answered = post.endpoint.answered[post.name]
        try:
            await (self._canary(post, post.card) if post.card else self._admit(post))
        except OverloadedError:
            pass  # a full queue is one that is served
        except DeadlineError as error:
            if post.endpoint.answered[post.name] == answered:  # else it is only busy
                self._take_out(post, error)
                post.endpoint.abandon(post.name)
        except ServiceError as error:
            self._take_out(post, error)
            if self._reload and (post.unloaded or isinstance(error, DeadBackendError)):
                await self._revive(post)
        except Exception as error:  # a watch must not end: what nobody foresaw keeps the post out, and is told
            log.exception("examining %s at %s", post.name, post.endpoint.address)
            self._take_out(post, ServiceUnavailableError("triton", f"at {post.endpoint.address}: {error!r}"))

    async def _canary(self, post: _Post, card: ModelCard) -> None:
        """Ask for one golden vector as often as there are copies, which take turns."""
        assert post.golden is not None
        for _ in range(card.copies):
            await self._compare(post, card, post.golden, 1, self._patience.canary_within)

    async def _admit(self, post: _Post) -> None:
        card, golden = await _examined(post)
        for _ in range(card.copies):
            await self._compare(post, card, golden, len(golden.vectors), EXAMINATION_SECONDS)
        post.card, post.golden, post.refusal = card, golden, None
        log.info("triton at %s serves %s", post.endpoint.address, post.name)

    async def _compare(self, post: _Post, card: ModelCard, golden: Golden, count: int, seconds: float) -> None:
        together = min(card.max_batch, post.wanted.feed.together)
        for start in range(0, count, together):
            asked = post.wanted.feed.golden[start : min(count, start + together)]
            vectors = await _asked(post, card, asked, seconds)
            cosines = (vectors * golden.vectors[start : start + len(asked)]).sum(axis=1)
            if cosines.min() < golden.least_cosine:
                problem = f"a golden vector has cosine {cosines.min():.5f}, {golden.least_cosine} is the least"
                raise _refused(post, problem)

    async def _revive(self, post: _Post) -> None:
        """Unload and load the model, the one way to a new backend process, and not all the time."""
        if time.monotonic() < post.reloaded_at + RELOAD_EVERY_SECONDS:
            return
        log.warning("triton at %s is told to load %s anew", post.endpoint.address, post.name)
        try:
            await post.endpoint.unload(post.name, RELOAD_SECONDS)
            post.unloaded = True
            await post.endpoint.load(post.name, RELOAD_SECONDS)
            post.unloaded, post.reloaded_at = False, time.monotonic()
            await self._admit(post)
        except ServiceError as error:
            self._take_out(post, error)
            if not post.unloaded:  # it may not be, there: try again some time
                post.reloaded_at = time.monotonic()

    def _take_out(self, post: _Post, error: ServiceError) -> None:
        if post.card or str(error) != str(post.refusal):
            log.warning("triton at %s does not serve %s: %s", post.endpoint.address, post.name, error)
        post.card, post.refusal = None, error


async def _asked(post: _Post, card: ModelCard, elements: Sequence[Any], seconds: float) -> Matrix:
    tensors = await post.wanted.feed.tensors(elements, card.inputs)
    dimensions = post.wanted.served.tower.dimensions
    return await post.endpoint.infer(post.name, tensors, len(elements), dimensions, seconds)


async def _examined(post: _Post) -> tuple[ModelCard, Golden]:
    """Return what the server says of the model, once it is what the catalogue has."""
    card = await _card(post)
    if problem := post.wanted.feed.problem(card.inputs):
        raise _refused(post, problem)
    expected = ("FP32", (post.wanted.served.tower.dimensions,))
    if card.outputs.get(VECTOR) != expected:
        raise _refused(post, f"expected an output {VECTOR} {expected}, it has {dict(card.outputs)}")
    passport = card.parameters.get(PASSPORT, "")
    if passport != post.wanted.passport:
        raise _refused(post, f"expected passport {post.wanted.passport!r}, it has {passport!r}")
    try:
        golden = Golden.from_text(card.parameters.get(GOLDEN, ""))
    except ValueError as error:
        raise _refused(post, str(error)) from error
    if golden.vectors.shape != (len(post.wanted.feed.golden), post.wanted.served.tower.dimensions):
        raise _refused(post, f"its golden vectors have shape {golden.vectors.shape}")
    return card, golden


async def _card(post: _Post) -> ModelCard:
    try:
        return await post.endpoint.card(post.name, EXAMINATION_SECONDS)
    except ModelMissingError as error:
        if await post.endpoint.ready(EXAMINATION_SECONDS):
            raise _refused(post, "it is not there") from error
        raise


def _refused(post: _Post, problem: str) -> ModelFileError:
    return ModelFileError(f"model {post.name!r} of Triton at {post.endpoint.address}", problem)
