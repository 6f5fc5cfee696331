"""Embedding of texts and pictures, independent of transport and runtime."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.common.concurrency.limiter import ConcurrencyLimiter
from services.common.content import ContentType
from services.common.errors import ArgumentError, FingerprintError, InputNotSupportedError, ServiceError, TextError
from services.common.vectors import Matrix
from services.embedder.core.catalog import Model, ModelCatalog, Purpose
from services.embedder.core.encoder import TensorEncoder, TextEncoder
from services.embedder.media.images import DecodedImage, ImageReader, Media

MAX_INPUTS = 256
MAX_TEXT_CHARACTERS = 100_000

Input = str | bytes | None
"""A text, the bytes of a picture, or None for a message without content."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """An embedded input: its vector, shape (dimensions,), and for a picture the properties of its file."""

    vector: Matrix
    media: Media | None = None


Outcome = Embedding | ServiceError


@dataclass(frozen=True, slots=True)
class EmbedResults:
    """The outcome of each input, in order, and the fingerprint of the vectors."""

    outcomes: list[Outcome]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Encoders:
    """The encoders of a model; None for a kind of input that it does not take."""

    text: TextEncoder | None
    image: TensorEncoder | None


class Embedder:
    """Embeds texts and pictures with the models of a catalog."""

    def __init__(
        self,
        catalog: ModelCatalog,
        encoders: Mapping[str, Encoders],
        pictures: ImageReader,
        limiter: ConcurrencyLimiter,
    ) -> None:
        """`encoders` holds those of each model of `catalog`, by its name."""
        self._catalog = catalog
        self._encoders = encoders
        self._pictures = pictures
        self._limiter = limiter

    async def embed(
        self, name: str, fingerprint: str, inputs: Sequence[Input], purpose: Purpose | None = None
    ) -> EmbedResults:
        """Embed `inputs` with the model called `name`, texts for `purpose`; return the outcome of each.

        Raises:
            ModelNotFoundError: there is no such model.
            FingerprintError: `fingerprint` is not empty and not the model's.
            ArgumentError: there are no inputs, or too many.
            OverloadedError: too many inputs are in progress.
        """
        model = self._catalog.get(name)
        actual = self._catalog.fingerprint(name)
        if fingerprint not in ("", actual):
            raise FingerprintError(fingerprint, actual)
        if not 1 <= len(inputs) <= MAX_INPUTS:
            raise ArgumentError("inputs", len(inputs), f"must be 1 to {MAX_INPUTS}")
        with self._limiter.admit(len(inputs)):
            return EmbedResults(await self._outcomes(model, inputs, purpose), actual)

    async def inspect(self, file: bytes) -> Media:
        """Return the properties of a media file.

        Raises:
            MediaError: it is no picture, or a damaged one.
            TooManyPixelsError, MessageTooLargeError: it is too large.
            OverloadedError: too many inputs are in progress.
        """
        with self._limiter.admit(1):
            return await self._pictures.inspect(file)

    async def _outcomes(self, model: Model, inputs: Sequence[Input], purpose: Purpose | None) -> list[Outcome]:
        texts = [(place, given) for place, given in enumerate(inputs) if isinstance(given, str)]
        files = [(place, given) for place, given in enumerate(inputs) if isinstance(given, bytes)]
        outcomes: dict[int, Outcome] = {
            place: ArgumentError("content", "", "must be text or image")
            for place, given in enumerate(inputs)
            if not isinstance(given, str | bytes)
        }
        if texts:
            outcomes |= await self._embed_texts(model, texts, purpose)
        if files:
            outcomes |= await self._embed_pictures(model, files)
        return [outcomes[place] for place in range(len(inputs))]

    async def _embed_texts(
        self, model: Model, texts: Sequence[tuple[int, str]], purpose: Purpose | None
    ) -> dict[int, Outcome]:
        encoder = self._encoders[model.name].text
        if encoder is None:
            return dict.fromkeys((place for place, _ in texts), _not_supported(model, ContentType.TEXT))
        refused = {place: problem for place, text in texts if (problem := find_text_error(text))}
        good = [(place, text) for place, text in texts if place not in refused]
        vectors = await encoder.encode([model.prefix(purpose) + text for _, text in good])
        embeddings = {place: Embedding(vector) for (place, _), vector in zip(good, vectors, strict=True)}
        return {**refused, **embeddings}

    async def _embed_pictures(self, model: Model, files: Sequence[tuple[int, bytes]]) -> dict[int, Outcome]:
        encoder = self._encoders[model.name].image
        if encoder is None or model.image is None:
            return dict.fromkeys((place for place, _ in files), _not_supported(model, ContentType.IMAGE))
        read = await self._pictures.read([file for _, file in files], model.image.preprocessing)
        outcomes = dict(zip((place for place, _ in files), read, strict=True))
        good = {place: picture for place, picture in outcomes.items() if isinstance(picture, DecodedImage)}
        vectors = await _encode_images(encoder, good.values())
        embeddings = {
            place: Embedding(vector, picture.media)
            for (place, picture), vector in zip(good.items(), vectors, strict=True)
        }
        refused = {place: error for place, error in outcomes.items() if isinstance(error, ServiceError)}
        return {**refused, **embeddings}


def _not_supported(model: Model, content_type: ContentType) -> InputNotSupportedError:
    return InputNotSupportedError(f"model {model.name!r} does not take", model.name, content_type)


def find_text_error(text: str) -> TextError | None:
    """Return why `text` cannot be embedded; None if it can."""
    if len(text) > MAX_TEXT_CHARACTERS:
        return TextError(f"has {len(text)} characters, {MAX_TEXT_CHARACTERS} at most")
    if not text or text.isspace():
        return TextError("is empty" if not text else "is only white space")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return TextError(f"has half a character, a lone surrogate, at {error.start}")
    return None


async def _encode_images(encoder: TensorEncoder, pictures: Iterable[DecodedImage]) -> Iterable[Matrix]:
    rows = [picture.pixels for picture in pictures]
    return await encoder.encode(np.stack(rows)) if rows else ()
