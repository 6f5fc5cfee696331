"""The ports of model runtimes."""

from collections.abc import Sequence
from typing import Protocol

from services.common.vectors import Matrix
from services.embedder.core.catalog import ImageTower, TextProjection, TextTower
from services.embedder.core.preprocessing import Pixels


class TextEncoder(Protocol):
    """Texts to vectors. Implementations pass `tests.contract.encoder.TextEncoderContract`.

    A text's vector is bit-identical whatever else is in the batch or runs concurrently.
    """

    async def warm(self) -> None:
        """Load and warm up, so that the first call takes no longer than later ones.

        Raises:
            ModelFileError: a file is missing, altered, or does not match its description.
            ServiceUnavailableError: the runtime does not answer.
        """
        ...

    async def encode(self, texts: Sequence[str]) -> Matrix:
        """Return one unit vector per text, shape (len(texts), dimensions), in order. Warms up first if necessary.

        Cancelling the call drops the work that has not started. Raises as `warm`, and:

        Raises:
            OverloadedError: the queue of the runtime is full.
        """
        ...


class TensorEncoder(Protocol):
    """Rows of numbers, pixels or vectors, to vectors.

    Implementations pass `tests.contract.encoder.TensorEncoderContract`.

    A row's vector does not depend on its batch, up to rounding: cosine at least 0.99999 to that in a batch of one.
    """

    async def warm(self) -> None:
        """Load and warm up, as `TextEncoder.warm`."""
        ...

    async def encode(self, rows: Pixels) -> Matrix:
        """Return one unit vector per row, shape (len(rows), dimensions), in order; as `TextEncoder.encode`.

        `rows` is float32 of shape (n, 3, size, size) for pictures, (n, dimensions of the base model) for a projection.
        """
        ...


class Runtime(Protocol):
    """Creates encoders for the towers of models. They are loaded by `warm` or the first `encode`."""

    @property
    def identity(self) -> str:
        """Identifies the runtime as far as it affects vectors; part of every fingerprint."""
        ...

    def text_encoder(self, tower: TextTower) -> TextEncoder:
        """Return an encoder of texts."""
        ...

    def projection_encoder(self, projection: TextProjection) -> TensorEncoder:
        """Return an encoder of another model's text vectors; its results are bit-identical in any batch."""
        ...

    def image_encoder(self, tower: ImageTower) -> TensorEncoder:
        """Return an encoder of pixels."""
        ...
