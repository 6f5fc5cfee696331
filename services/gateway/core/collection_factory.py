"""Creates collections; what a request leaves out of a space is filled in from its model."""

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
    """A space as requested; 0, None and empty values take the model's."""

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

    async def create(self, name: str, specs: Sequence[SpaceSpec]) -> CollectionView_co:
        """Create a collection of the spaces of `specs`, or of `DEFAULT_SPACES` when there are none.

        Raises:
            ArgumentError: a name, number, choice or index is not allowed.
            InputNotSupportedError: a model does not take a source.
            NotFoundError: there is no such model.
            AlreadyExistsError: the collection exists with other spaces.
        """
        validate_collection_name(name)
        _validate_names(specs)
        specs = specs or DEFAULT_SPACES
        spaces = await gather([self._resolve_space(spec) for spec in specs])
        indexes = {
            space.name: validate_index_config(spec.index, space.dimensions)
            for spec, space in zip(specs, spaces, strict=True)
        }
        return await self._store.create_collection(Collection(name, tuple(spaces)), indexes)

    async def _resolve_space(self, spec: SpaceSpec) -> Space:
        if not spec.model:
            return resolve_space_without_model(spec)
        return resolve_space_with_model(spec, await self._embedder.get_model(spec.model))


def resolve_space_with_model(spec: SpaceSpec, model: Model) -> Space:
    """Return the space of `spec`, whose vectors `model` makes.

    Raises:
        ArgumentError: the dimensions are not the model's, or a source comes twice.
        InputNotSupportedError: the model does not take a source.
    """
    if spec.dimensions not in (0, model.dimensions):
        raise ArgumentError("dimensions", spec.dimensions, f"vectors of {model.name} have {model.dimensions}")
    if len(set(spec.sources)) < len(spec.sources):
        raise ArgumentError("sources", [source.value for source in spec.sources], "one comes twice")
    for source in spec.sources:
        if source not in model.inputs:
            raise InputNotSupportedError(f"model {model.name!r} does not take", model.name, source)
    sources = spec.sources or default_sources(model)
    return Space(spec.name, model.name, model.dimensions, spec.metric or model.metric, sources, model.fingerprint)


def resolve_space_without_model(spec: SpaceSpec) -> Space:
    """Return the space of `spec`, whose vectors the callers provide.

    Raises:
        ArgumentError: the dimensions are out of range, or there are sources.
    """
    if not 1 <= spec.dimensions <= MAX_DIMENSIONS:
        raise ArgumentError("dimensions", spec.dimensions, f"without a model 1 to {MAX_DIMENSIONS}")
    if spec.sources:
        raise ArgumentError("sources", [source.value for source in spec.sources], "must be empty without a model")
    return Space(spec.name, "", spec.dimensions, spec.metric or Metric.COSINE)


def default_sources(model: Model) -> tuple[ContentType, ...]:
    """Return only images for a model that takes them, otherwise every input it takes.

    Texts in a space of images score closer to a text query than any image, and would crowd the images out.
    """
    return (ContentType.IMAGE,) if ContentType.IMAGE in model.inputs else model.inputs


def _validate_names(specs: Sequence[SpaceSpec]) -> None:
    if len(specs) > MAX_SPACES:
        raise ArgumentError("spaces", len(specs), f"at most {MAX_SPACES}")
    for name, count in Counter(validate_space_name(spec.name) for spec in specs).items():
        if count > 1:
            raise ArgumentError("space", name, "comes twice")
