"""What a caller wants written, checked: everything about a row that does not depend on the row before it."""

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
from services.store.core.media_store import Announcement, MediaStore
from services.store.core.mime import SNIFFED_BYTES, content_of, mime_type
from services.store.core.rows import CollectionSchema, Media, Row

MAX_ROWS = 10_000
MAX_TEXT_CHARACTERS = 1_000_000
UPLOADS_AT_A_TIME = 256
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class MediaInput:
    """Media as given: a reference, or with `data` the object itself. Empty and 0 mean not given."""

    sha256: str = ""
    mime_type: str = ""
    size_bytes: int = 0
    width: int = 0
    height: int = 0
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class RowHistory:
    """What a row that is restored was: its revision, and when it was first and last written."""

    revision: int
    created: datetime
    updated: datetime


@dataclass(frozen=True, slots=True)
class RowInput:
    """A row as given; `vectors` as little-endian float32. None and empty mean not given."""

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
    """A row that may be written if its revision is the expected one."""

    row: Row
    expected_revision: int | None
    history: RowHistory | None = None


class RowValidator:
    """Checks drafts and stores the media that come with them."""

    def __init__(self, media: MediaStore) -> None:
        self._media = media

    async def admit(
        self, definition: CollectionSchema, drafts: Sequence[RowInput]
    ) -> list[ValidatedRow | ServiceError]:
        """Return for each draft the row it makes or why it cannot be, in order; its media are stored by then."""
        checked = await asyncio.to_thread(_checked, definition, drafts)
        media = await self._all_media(
            [draft if isinstance(row, Row) else None for draft, row in zip(drafts, checked, strict=True)]
        )
        return [_joined(*parts) for parts in zip(drafts, checked, media, strict=True)]

    async def media(self, draft: MediaInput, content: ContentType | None) -> tuple[Media, ContentType]:
        """Return the reference to the draft's object, stored by then, and what it is.

        Raises:
            MediaNotFoundError: it was to be stored before.
            UploadIncompleteError: not what was announced.
            ArgumentError: a bad hash, or nothing says what the media are.
        """
        known = await self._media.claim([_checked_media(draft).sha256] if draft.data is None else [])
        return await self._one_media(draft, content, known)

    async def _all_media(
        self, drafts: Sequence[RowInput | None]
    ) -> list[tuple[Media, ContentType] | ServiceError | None]:
        referred = {draft.media.sha256 for draft in drafts if draft and draft.media and draft.media.data is None}
        known = await self._media.claim(referred)
        outcomes: list[tuple[Media, ContentType] | ServiceError | None] = [None] * len(drafts)
        waiting = ((place, draft) for place, draft in enumerate(drafts) if draft)

        async def put_in_turn() -> None:
            for place, draft in waiting:
                try:
                    outcomes[place] = await self._media_of(draft, known)
                except ServiceError as error:
                    outcomes[place] = error

        async with asyncio.TaskGroup() as group:
            for _ in range(min(UPLOADS_AT_A_TIME, len(drafts))):
                group.create_task(put_in_turn())
        return outcomes

    async def _media_of(self, draft: RowInput, known: Mapping[str, int]) -> tuple[Media, ContentType] | None:
        return await self._one_media(draft.media, draft.media_content, known) if draft.media else None

    async def _one_media(
        self, draft: MediaInput, content: ContentType | None, known: Mapping[str, int]
    ) -> tuple[Media, ContentType]:
        if draft.data is None:
            sha256, size = draft.sha256, _announced_size(draft, known)
        else:
            stored = await self._media.put(_whole(draft.data), Announcement(draft.size_bytes, draft.sha256))
            sha256, size = stored.sha256, stored.size_bytes
        mime = draft.mime_type or mime_type(await self._media.read(sha256, 0, SNIFFED_BYTES))
        return Media(sha256, mime, size, draft.width, draft.height), _content(content, mime)


def check_number(what: str, number: int) -> None:
    """Check that a batch has a size that is allowed.

    Raises:
        ArgumentError: it has not.
    """
    if not 1 <= number <= MAX_ROWS:
        raise ArgumentError(what, number, f"there must be 1 to {MAX_ROWS}")


def check_fingerprints(definition: CollectionSchema, fingerprints: Mapping[str, str]) -> None:
    """Check that vectors made under `fingerprints`, by space, belong in the collection.

    Raises:
        SpaceNotFoundError: no such space.
        FingerprintError: another fingerprint than the space's.
    """
    for name, fingerprint in fingerprints.items():
        space = definition.space(name)
        if space is None:
            raise SpaceNotFoundError(name, [space.name for space in definition.spaces])
        if fingerprint != space.fingerprint:
            raise FingerprintError(space.fingerprint, fingerprint)


def checked_vectors(definition: CollectionSchema, vectors: Mapping[str, bytes]) -> dict[str, Matrix]:
    """Return `vectors`, decoded.

    Raises:
        SpaceNotFoundError: no such space.
        DimensionError, VectorError: one does not fit its space.
    """
    return {name: _vector(definition, name, encoded) for name, encoded in vectors.items()}


def checked_text(text: str | None) -> str | None:
    """Return `text`, None for the empty one.

    Raises:
        TextError: it is too long.
    """
    if text and len(text) > MAX_TEXT_CHARACTERS:
        raise TextError(f"has {len(text)} characters, {MAX_TEXT_CHARACTERS} at most")
    return text or None


def check_not_empty(row: Row) -> Row:
    """Return `row` if it has anything to find it by.

    Raises:
        ItemEmptyError: it has not.
    """
    if row.text is None and row.media is None and not row.spaces:
        raise ItemEmptyError(row.id)
    return row


def in_order(definition: CollectionSchema, vectors: Mapping[str, Matrix]) -> tuple[str, ...]:
    """Return the names of the spaces of `vectors`, in the collection's order."""
    return tuple(space.name for space in definition.spaces if space.name in vectors)


def checked_sha256(sha256: str) -> str:
    """Return `sha256` if it is a SHA-256 as we write them.

    Raises:
        ArgumentError: it is not.
    """
    if not _SHA256.fullmatch(sha256):
        raise ArgumentError("sha256", sha256, "must be 64 lower-case hexadecimal digits")
    return sha256


def _checked(definition: CollectionSchema, drafts: Sequence[RowInput]) -> list[Row | ServiceError]:
    seen: set[str] = set()
    checked: list[Row | ServiceError] = []
    for draft in drafts:
        try:
            checked.append(_row(definition, draft, seen))
        except ServiceError as error:
            checked.append(error)
    return checked


def _row(definition: CollectionSchema, draft: RowInput, seen: set[str]) -> Row:
    if validate_item_id(draft.id) in seen:
        raise DuplicateIdError(draft.id)
    seen.add(draft.id)
    parse_metadata(draft.metadata_json)
    if draft.history and draft.history.revision < 1:
        raise ArgumentError("history.revision", draft.history.revision, "must be 1 or more")
    vectors = checked_vectors(definition, draft.vectors)
    row = Row(
        draft.id,
        ContentType.TEXT,
        checked_text(draft.text),
        metadata_json=draft.metadata_json or "{}",
        vectors=vectors,
        spaces=in_order(definition, vectors),
    )
    if draft.media is not None:
        _checked_media(draft.media)
    elif draft.media_content is not None:
        raise ArgumentError("media_type", draft.media_content.value, "needs media")
    else:
        check_not_empty(row)
    return row


def _joined(
    draft: RowInput, row: Row | ServiceError, media: tuple[Media, ContentType] | ServiceError | None
) -> ValidatedRow | ServiceError:
    if isinstance(row, ServiceError):
        return row
    if isinstance(media, ServiceError):
        return media
    if media is not None:
        row = replace(row, media=media[0], content=media[1])
    return ValidatedRow(row, draft.expected_revision, draft.history)


def _vector(definition: CollectionSchema, name: str, encoded: bytes) -> Matrix:
    space = definition.space(name)
    if space is None:
        raise SpaceNotFoundError(name, [space.name for space in definition.spaces])
    return validate_comparable(from_bytes(encoded, space.dimensions), space.metric)


def _checked_media(draft: MediaInput) -> MediaInput:
    if draft.sha256 or draft.data is None:
        checked_sha256(draft.sha256)
    for name, value in (("size_bytes", draft.size_bytes), ("width", draft.width), ("height", draft.height)):
        if value < 0:
            raise ArgumentError(name, value, "must not be negative")
    return draft


def _announced_size(draft: MediaInput, known: Mapping[str, int]) -> int:
    if draft.sha256 not in known:
        raise MediaNotFoundError(draft.sha256)
    actual = known[draft.sha256]
    if draft.size_bytes not in (0, actual):
        raise UploadIncompleteError(f"{draft.size_bytes} bytes", f"{actual} bytes")
    return actual


def _content(given: ContentType | None, mime: str) -> ContentType:
    content = given or content_of(mime)
    if content is None:
        raise ArgumentError("media_type", "", f"must be given for {mime}")
    return content


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    yield data
