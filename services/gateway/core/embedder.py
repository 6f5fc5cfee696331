"""The embedder's ports."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeVar

from services.common.content import ContentType
from services.common.errors import ServiceError
from services.common.vectors import Matrix, Metric
from services.gateway.core.items import MediaFacts

ModelView_co = TypeVar("ModelView_co", covariant=True)

MAX_INPUTS = 256

Content = str | bytes
"""A text, or the bytes of an image file."""


class Purpose(Enum):
    """What texts are embedded for."""

    QUERY = "query"
    DOCUMENT = "document"


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the catalogue and the inputs it takes."""

    name: str
    dimensions: int
    metric: Metric
    inputs: tuple[ContentType, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Embedding:
    """The vector of an input; `media` describes an image and is None for a text."""

    vector: Matrix
    media: MediaFacts | None


class Embedder(Protocol):
    """Turns texts and images into vectors.

    Every method raises `ServiceUnavailableError` when the embedder does not answer and `OverloadedError` when its queue
    is full.
    """

    async def get_model(self, name: str) -> Model:
        """Return a model by name.

        Raises:
            NotFoundError: the catalogue has no such model.
        """
        ...

    async def embed(
        self, model: str, fingerprint: str, inputs: Sequence[Content], purpose: Purpose
    ) -> list[Embedding | ServiceError]:
        """Return the vector of each of `inputs`, 1 to `MAX_INPUTS`, in order, or the error of that input.

        `purpose` affects texts, of models that distinguish queries from documents.

        Raises:
            PreconditionError: the model has another fingerprint; an empty `fingerprint` takes any.
            NotFoundError: the catalogue has no such model.
        """
        ...

    async def inspect(self, data: bytes) -> MediaFacts:
        """Return the facts of the media `data`.

        Raises:
            InvalidError: `data` cannot be embedded.
        """
        ...


class ModelLister(Protocol[ModelView_co]):
    """Lists models."""

    async def list_models(self) -> Sequence[ModelView_co]:
        """Return all models of the catalogue, as the API shows them."""
        ...
