"""Validation of rows to write, as far as it does not depend on the rows that they replace."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from services.common.content import ContentType
from services.common.errors import (
    ArgumentError,
    DuplicateIdError,
    FingerprintError,
    ItemEmptyError,
    ServiceError,
    SpaceNotFoundError,
    TextError,
)
from services.common.metadata import parse_metadata
from services.common.names import validate_item_id
from services.common.vectors import Matrix, from_bytes, validate_comparable
from services.store.core.errors import MediaNotFoundError, UploadIncompleteError
from services.store.core.media_store import ExpectedUpload, MediaStore
from services.store.core.mime import SNIFFED_BYTES, content_of, mime_type
from services.store.core.rows import CollectionSchema, Media, Row

MAX_ROWS = 10_000
MAX_TEXT_CHARACTERS = 1_000_000
MAX_CONCURRENT_UPLOADS = 256
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class MediaInput:
    """Media of a request: a reference, or with `data` the object itself. "" and 0 mean unset."""

    sha256: str = ""
    mime_type: str = ""
    size_bytes: int = 0
    width: int = 0
    height: int = 0
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class RowHistory:
    """The revision of a restored row, and when it was first and last written."""

    revision: int
    created: datetime
    updated: datetime


@dataclass(frozen=True, slots=True)
class RowInput:
    """A row of a request; `vectors` are little-endian float32. None and "" mean unset."""

    id: str
    text: str | None = None
    media: MediaInput | None = None
    media_content: ContentType | None = None
    metadata_json: str = ""
    vectors: Mapping[str, bytes] = field(default_factory=dict)
    expected_revision: int | None = None
    history: RowHistory | None = None


@dataclass(frozen=True, slots=True)
class ValidatedRow:
    """A valid row, to be written if the row it replaces has the expected revision."""

    row: Row
    expected_revision: int | None
    history: RowHistory | None = None


class RowValidator:
    """Validates rows, and stores the media they contain."""

    def __init__(self, media: MediaStore) -> None:
        self._media = media

    async def validate(self, schema: CollectionSchema, inputs: Sequence[RowInput]) -> list[ValidatedRow | ServiceError]:
        """Validate rows and store their media; return for each of `inputs`, in order, its row or error."""
        rows = await asyncio.to_thread(_validate_rows, schema, inputs)
        media = await self._store_all_media(
            [row_input if isinstance(row, Row) else None for row_input, row in zip(inputs, rows, strict=True)]
        )
        return [_combine(*each) for each in zip(inputs, rows, media, strict=True)]

    async def store_media(self, media_input: MediaInput, content: ContentType | None) -> tuple[Media, ContentType]:
        """Store the object unless it is a reference; return its reference and content type.

        Raises:
            MediaNotFoundError: a reference to an object that does not exist.
            UploadIncompleteError: the size or hash is not the announced one.
            ArgumentError: the hash is invalid, or the content type is not given and unknown.
        """
        known = await self._media.touch([_validate_media(media_input).sha256] if media_input.data is None else [])
        return await self._store_media(media_input, content, known)

    async def _store_all_media(
        self, inputs: Sequence[RowInput | None]
    ) -> list[tuple[Media, ContentType] | ServiceError | None]:
        references = {
            row_input.media.sha256
            for row_input in inputs
            if row_input and row_input.media and row_input.media.data is None
        }
        known = await self._media.touch(references)
        outcomes: list[tuple[Media, ContentType] | ServiceError | None] = [None] * len(inputs)
        pending = ((index, row_input) for index, row_input in enumerate(inputs) if row_input)

        async def store_next() -> None:
            for index, row_input in pending:
                try:
                    outcomes[index] = await self._store_media_of(row_input, known)
                except ServiceError as error:
                    outcomes[index] = error

        async with asyncio.TaskGroup() as group:
            for _ in range(min(MAX_CONCURRENT_UPLOADS, len(inputs))):
                group.create_task(store_next())
        return outcomes

    async def _store_media_of(self, row_input: RowInput, known: Mapping[str, int]) -> tuple[Media, ContentType] | None:
        return await self._store_media(row_input.media, row_input.media_content, known) if row_input.media else None

    async def _store_media(
        self, media_input: MediaInput, content: ContentType | None, known: Mapping[str, int]
    ) -> tuple[Media, ContentType]:
        if media_input.data is None:
            sha256, size = media_input.sha256, _validate_size(media_input, known)
        else:
            stored = await self._media.put(
                _single_chunk(media_input.data), ExpectedUpload(media_input.size_bytes, media_input.sha256)
            )
            sha256, size = stored.sha256, stored.size_bytes
        mime = media_input.mime_type or mime_type(await self._media.read(sha256, 0, SNIFFED_BYTES))
        return Media(sha256, mime, size, media_input.width, media_input.height), _content_type(content, mime)


def validate_batch_size(name: str, size: int) -> None:
    """Check that a batch has 1 to `MAX_ROWS` elements.

    Raises:
        ArgumentError: it has not.
    """
    if not 1 <= size <= MAX_ROWS:
        raise ArgumentError(name, size, f"there must be 1 to {MAX_ROWS}")


def validate_fingerprints(schema: CollectionSchema, fingerprints: Mapping[str, str]) -> None:
    """Check that `fingerprints`, by space, are those of the collection's spaces.

    Raises:
        SpaceNotFoundError: there is no such space.
        FingerprintError: the space has another fingerprint.
    """
    for name, fingerprint in fingerprints.items():
        space = schema.space(name)
        if space is None:
            raise SpaceNotFoundError(name, [space.name for space in schema.spaces])
        if fingerprint != space.fingerprint:
            raise FingerprintError(space.fingerprint, fingerprint)


def decode_vectors(schema: CollectionSchema, vectors: Mapping[str, bytes]) -> dict[str, Matrix]:
    """Return `vectors`, by space, decoded from little-endian float32.

    Raises:
        SpaceNotFoundError: there is no such space.
        DimensionError, VectorError: a vector is invalid in its space.
    """
    return {name: _decode_vector(schema, name, encoded) for name, encoded in vectors.items()}


def validate_text(text: str | None) -> str | None:
    """Return `text`, or None if it is empty.

    Raises:
        TextError: it is too long.
    """
    if text and len(text) > MAX_TEXT_CHARACTERS:
        raise TextError(f"has {len(text)} characters, {MAX_TEXT_CHARACTERS} at most")
    return text or None


def validate_not_empty(row: Row) -> Row:
    """Return `row` if it has text, media or a vector.

    Raises:
        ItemEmptyError: it has none of them.
    """
    if row.text is None and row.media is None and not row.spaces:
        raise ItemEmptyError(row.id)
    return row


def space_names(schema: CollectionSchema, vectors: Mapping[str, Matrix]) -> tuple[str, ...]:
    """Return the names of the spaces of `vectors`, in the collection's order."""
    return tuple(space.name for space in schema.spaces if space.name in vectors)


def validate_sha256(sha256: str) -> str:
    """Return `sha256` if it is a SHA-256 in lower-case hexadecimal.

    Raises:
        ArgumentError: it is not.
    """
    if not _SHA256.fullmatch(sha256):
        raise ArgumentError("sha256", sha256, "must be 64 lower-case hexadecimal digits")
    return sha256


def _validate_rows(schema: CollectionSchema, inputs: Sequence[RowInput]) -> list[Row | ServiceError]:
    seen: set[str] = set()
    outcomes: list[Row | ServiceError] = []
    for row_input in inputs:
        try:
            outcomes.append(_validate_row(schema, row_input, seen))
        except ServiceError as error:
            outcomes.append(error)
    return outcomes


def _validate_row(schema: CollectionSchema, row_input: RowInput, seen: set[str]) -> Row:
    if validate_item_id(row_input.id) in seen:
        raise DuplicateIdError(row_input.id)
    seen.add(row_input.id)
    parse_metadata(row_input.metadata_json)
    if row_input.history and row_input.history.revision < 1:
        raise ArgumentError("history.revision", row_input.history.revision, "must be 1 or more")
    vectors = decode_vectors(schema, row_input.vectors)
    row = Row(
        row_input.id,
        ContentType.TEXT,
        validate_text(row_input.text),
        metadata_json=row_input.metadata_json or "{}",
        vectors=vectors,
        spaces=space_names(schema, vectors),
    )
    if row_input.media is not None:
        _validate_media(row_input.media)
    elif row_input.media_content is not None:
        raise ArgumentError("media_type", row_input.media_content.value, "needs media")
    else:
        validate_not_empty(row)
    return row


def _combine(
    row_input: RowInput, row: Row | ServiceError, media: tuple[Media, ContentType] | ServiceError | None
) -> ValidatedRow | ServiceError:
    if isinstance(row, ServiceError):
        return row
    if isinstance(media, ServiceError):
        return media
    if media is not None:
        row = replace(row, media=media[0], content=media[1])
    return ValidatedRow(row, row_input.expected_revision, row_input.history)


def _decode_vector(schema: CollectionSchema, name: str, encoded: bytes) -> Matrix:
    space = schema.space(name)
    if space is None:
        raise SpaceNotFoundError(name, [space.name for space in schema.spaces])
    return validate_comparable(from_bytes(encoded, space.dimensions), space.metric)


def _validate_media(media_input: MediaInput) -> MediaInput:
    if media_input.sha256 or media_input.data is None:
        validate_sha256(media_input.sha256)
    for name, value in (
        ("size_bytes", media_input.size_bytes),
        ("width", media_input.width),
        ("height", media_input.height),
    ):
        if value < 0:
            raise ArgumentError(name, value, "must not be negative")
    return media_input


def _validate_size(media_input: MediaInput, known: Mapping[str, int]) -> int:
    if media_input.sha256 not in known:
        raise MediaNotFoundError(media_input.sha256)
    actual = known[media_input.sha256]
    if media_input.size_bytes not in (0, actual):
        raise UploadIncompleteError(f"{media_input.size_bytes} bytes", f"{actual} bytes")
    return actual


def _content_type(given: ContentType | None, mime: str) -> ContentType:
    content = given or content_of(mime)
    if content is None:
        raise ArgumentError("media_type", "", f"is required for {mime}")
    return content


async def _single_chunk(data: bytes) -> AsyncIterator[bytes]:
    yield data
