"""Making a collection: what a caller leaves out of its spaces is filled in from the models."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic

from services.common.concurrency.tasks import gather
from services.common.content import ContentType
from services.common.errors import ArgumentError, InputNotSupportedError
from services.common.index_config import IndexConfig, validate_index_config
from services.common.names import validate_collection_name, validate_space_name
from services.common.vectors import MAX_DIMENSIONS, Metric
from services.gateway.core.embedder import Embedder, Model
from services.gateway.core.items import Collection, Space
from services.gateway.core.store import CollectionStore, CollectionView_co

MAX_SPACES = 16


@dataclass(frozen=True, slots=True)
class SpaceSpec:
    """A space as a caller asks for it; 0, None and empty leave the choice to the model."""

    name: str
    model: str = ""
    dimensions: int = 0
    metric: Metric | None = None
    sources: tuple[ContentType, ...] = ()
    index: IndexConfig = field(default_factory=IndexConfig)


DEFAULT_SPACES = (SpaceSpec("clip", model="medley-mini"), SpaceSpec("text", model="minilm"))


class CollectionFactory(Generic[CollectionView_co]):
    """Creates collections."""

    def __init__(self, store: CollectionStore[CollectionView_co], embedder: Embedder) -> None:
        self._store = store
        self._embedder = embedder

    async def create(self, name: str, wishes: Sequence[SpaceSpec]) -> CollectionView_co:
        """Create a collection of the spaces wished for, or of `DEFAULT_SPACES` without any.

        Raises:
            ArgumentError: a name, number, choice or index is not allowed.
            InputNotSupportedError: a model does not take a source.
            NotFoundError: there is no such model.
            AlreadyExistsError: the collection is there with other spaces.
        """
        validate_collection_name(name)
        _check_names(wishes)
        wishes = wishes or DEFAULT_SPACES
        spaces = await gather([self._space(wish) for wish in wishes])
        indexes = {
            space.name: validate_index_config(wish.index, space.dimensions)
            for wish, space in zip(wishes, spaces, strict=True)
        }
        return await self._store.create(Collection(name, tuple(spaces)), indexes)

    async def _space(self, wish: SpaceSpec) -> Space:
        return embedded_space(wish, await self._embedder.model(wish.model)) if wish.model else bare_space(wish)


def embedded_space(wish: SpaceSpec, model: Model) -> Space:
    """Return the space whose vectors `model` makes, as `wish` has it.

    Raises:
        ArgumentError: the dimensions are not the model's, or a source comes twice.
        InputNotSupportedError: the model does not take a source.
    """
    if wish.dimensions not in (0, model.dimensions):
        raise ArgumentError("dimensions", wish.dimensions, f"vectors of {model.name} have {model.dimensions}")
    if len(set(wish.sources)) < len(wish.sources):
        raise ArgumentError("sources", [source.value for source in wish.sources], "one comes twice")
    for source in wish.sources:
        if source not in model.inputs:
            raise InputNotSupportedError(f"model {model.name!r} does not take", model.name, source)
    sources = wish.sources or default_sources(model)
    return Space(wish.name, model.name, model.dimensions, wish.metric or model.metric, sources, model.fingerprint)


def bare_space(wish: SpaceSpec) -> Space:
    """Return the space whose vectors callers bring, as `wish` has it.

    Raises:
        ArgumentError: the dimensions are out of range, or there are sources.
    """
    if not 1 <= wish.dimensions <= MAX_DIMENSIONS:
        raise ArgumentError("dimensions", wish.dimensions, f"without a model 1 to {MAX_DIMENSIONS}")
    if wish.sources:
        raise ArgumentError("sources", [source.value for source in wish.sources], "must be empty without a model")
    return Space(wish.name, "", wish.dimensions, wish.metric or Metric.COSINE)


def default_sources(model: Model) -> tuple[ContentType, ...]:
    """Return pictures alone for a model that takes them, else all it takes.

    Texts in a space of pictures lie nearer to a text query than any picture does, and would hide the pictures.
    """
    return (ContentType.IMAGE,) if ContentType.IMAGE in model.inputs else model.inputs


def _check_names(wishes: Sequence[SpaceSpec]) -> None:
    if len(wishes) > MAX_SPACES:
        raise ArgumentError("spaces", len(wishes), f"at most {MAX_SPACES}")
    for name, times in Counter(validate_space_name(wish.name) for wish in wishes).items():
        if times > 1:
            raise ArgumentError("space", name, "comes twice")
