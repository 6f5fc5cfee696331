"""What the gateway asks of the embedder."""

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
"""A text, or the bytes of a picture's file."""


class Purpose(Enum):
    """What texts are embedded for."""

    QUERY = "query"
    DOCUMENT = "document"


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the catalogue, and what it embeds."""

    name: str
    dimensions: int
    metric: Metric
    inputs: tuple[ContentType, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Embedded:
    """An embedded content; `media` tells what a picture's bytes are and is None for a text."""

    vector: Matrix
    media: MediaFacts | None


class Embedder(Protocol):
    """Media and text in, vectors out.

    Every method raises `ServiceUnavailableError` where the embedder does not answer and `OverloadedError` where its
    queue is full.
    """

    async def model(self, name: str) -> Model:
        """Return the model of the name.

        Raises:
            NotFoundError: the catalogue has none.
        """
        ...

    async def embed(
        self, model: str, fingerprint: str, inputs: Sequence[Content], purpose: Purpose
    ) -> list[Embedded | ServiceError]:
        """Return the vector of each of `inputs`, 1 to `MAX_INPUTS`, in order, or why that one was refused.

        Texts are embedded for `purpose`, by models that make a difference.

        Raises:
            PreconditionError: the model's vectors do not have the `fingerprint`; an empty one takes any.
            NotFoundError: the catalogue has no such model.
        """
        ...

    async def inspect(self, data: bytes) -> MediaFacts:
        """Return what `data` are.

        Raises:
            InvalidError: nothing that could be embedded.
        """
        ...


class ModelLister(Protocol[ModelView_co]):
    """What models there are."""

    async def models(self) -> Sequence[ModelView_co]:
        """Return all models of the catalogue, as callers see them."""
        ...
