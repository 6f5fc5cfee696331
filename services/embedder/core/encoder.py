"""What the embedder asks of whatever runs its models."""

from collections.abc import Sequence
from typing import Protocol

from services.common.vectors import Matrix
from services.embedder.core.catalog import PictureTower, TextHead, TextTower
from services.embedder.core.preprocessing import Pixels


class TextEncoder(Protocol):
    """Texts to vectors. Implementations pass `tests.contract.encoder.TextEncoderContract`.

    A text's vector depends on the text alone, to the last bit: not on the texts beside it, nor on what else runs.
    """

    async def warm(self) -> None:
        """Get ready, so that the first text takes no longer than the next.

        Raises:
            ModelFileError: a file is missing, altered, or does not fit its description.
            ServiceUnavailableError: what runs the model does not answer.
        """
        ...

    async def encode(self, texts: Sequence[str]) -> Matrix:
        """Return one unit vector a text, shape (len(texts), dimensions), in order. Gets ready first if it is not.

        A cancelled call leaves undone what has not begun. Raises as `warm`, and besides:

        Raises:
            OverloadedError: what runs the model has too much waiting.
        """
        ...


class TensorEncoder(Protocol):
    """Rows of numbers, pixels or vectors, to vectors.

    Implementations pass `tests.contract.encoder.TensorEncoderContract`.

    A row's vector depends on the row alone, up to rounding: cosine 0.99999 and more to that of the row by itself.
    """

    async def warm(self) -> None:
        """Get ready; as `TextEncoder.warm`."""
        ...

    async def encode(self, rows: Pixels) -> Matrix:
        """Return one unit vector a row, shape (len(rows), dimensions), in order; as `TextEncoder.encode`.

        `rows` is float32 of shape (n, 3, size, size) for pictures, (n, dimensions of the model before) for a text head.
        """
        ...


class Runtime(Protocol):
    """Makes encoders for the towers of models. Making one is quick; loading comes with `warm` or the first `encode`."""

    @property
    def identity(self) -> str:
        """What of the runtime bears on the digits of a vector; part of every fingerprint."""
        ...

    def text_encoder(self, tower: TextTower) -> TextEncoder:
        """Return an encoder of texts."""
        ...

    def head_encoder(self, head: TextHead) -> TensorEncoder:
        """Return an encoder of another model's text vectors; a row's result is the same to the last bit beside any."""
        ...

    def picture_encoder(self, tower: PictureTower) -> TensorEncoder:
        """Return an encoder of pixels."""
        ...
