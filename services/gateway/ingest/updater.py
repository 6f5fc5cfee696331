"""Changing one item: it keeps what the change leaves out, and vectors made from what changed are made anew."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Self

from services.common.concurrency.retry import retry
from services.common.content import ContentType
from services.common.errors import ArgumentError, ConflictError, ItemEmptyError, RevisionError, ServiceError
from services.common.names import validate_item_id
from services.common.vectors import Matrix
from services.gateway.core.items import Collection, Inline, MediaSource, Space, Stored, validate_text
from services.gateway.core.metadata_cache import MetadataCache
from services.gateway.core.store import ItemState, MediaReader, MetadataChange, RowChange, RowEditor, ShownItem_co
from services.gateway.ingest.item_encoder import Encoded, ItemContent, ItemEmbedder, first_source, row_media
from services.gateway.ingest.validation import own_vectors

ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """A change as a caller asks for it: None keeps, a text of "" removes; `vectors` as in `NewItem`."""

    collection: str
    id: str
    text: str | None = None
    media: MediaSource | None = None
    remove_media: bool = False
    metadata: MetadataChange | None = None
    vectors: Mapping[str, bytes] = field(default_factory=dict)
    expected_revision: int | None = None

    @property
    def touches_content(self) -> bool:
        """Whether it may change what vectors are made from."""
        return self.text is not None or self.media is not None or self.remove_media


class Updater(Generic[ShownItem_co]):
    """Changes items."""

    def __init__(
        self,
        catalogue: MetadataCache,
        encoder: ItemEmbedder,
        rows: RowEditor[ShownItem_co],
        media: MediaReader,
        max_media_bytes: int,
    ) -> None:
        self._catalogue = catalogue
        self._encoder = encoder
        self._rows = rows
        self._media = media
        self._max_media_bytes = max_media_bytes

    async def update(self, wish: UpdateRequest) -> tuple[ShownItem_co, str]:
        """Commit the change; return the item and the version token that holds it.

        Where the caller expects no revision, a row written meanwhile is read again, a few times.

        Raises:
            ConflictError: the row has another revision than expected, or was written again and again.
            NotFoundError: no such collection, item, space or stored object.
            ItemEmptyError: nothing would be left of the item.
            InvalidError: a part of the change is not allowed.
        """
        validate_item_id(wish.id)
        if wish.text:
            validate_text(wish.text)
        if wish.media is not None and wish.remove_media:
            raise ArgumentError("remove_media", True, "not together with media")
        return await self._catalogue.with_collection(wish.collection, partial(self._update, wish))

    async def _update(self, wish: UpdateRequest, collection: Collection) -> tuple[ShownItem_co, str]:
        vectors = own_vectors(wish.vectors, collection)
        if not wish.touches_content:
            return await self._rows.update(collection.name, _row_change(wish, vectors), {})
        update = partial(self._update_content, wish, collection, vectors)
        if wish.expected_revision is not None:
            return await update()
        return await retry(update, lambda error: isinstance(error, ConflictError), attempts=ATTEMPTS)

    async def _update_content(
        self, wish: UpdateRequest, collection: Collection, vectors: Mapping[str, Matrix]
    ) -> tuple[ShownItem_co, str]:
        state = await self._rows.state(collection.name, wish.id)
        if wish.expected_revision not in (None, state.revision):
            raise RevisionError(wish.id, wish.expected_revision or 0, state.revision)
        after = await _After.of(wish, state)
        spaces = after.outdated_spaces(collection)
        if after.is_empty and not _own_spaces(collection) & (state.spaces | vectors.keys()):
            raise ItemEmptyError(wish.id)
        encoded = await self._encode(after, spaces)
        change = RowChange(
            wish.id,
            text=wish.text if after.text_changed else None,
            media=row_media(wish.media, encoded) if after.media_changed else None,
            remove_media=wish.remove_media and after.media_changed,
            metadata=wish.metadata,
            vectors={**encoded.vectors, **vectors},
            expected_revision=state.revision,
        )
        return await self._rows.update(collection.name, change, _fingerprints(spaces))

    async def _encode(self, after: "_After", spaces: Sequence[Space]) -> Encoded:
        examined = after.media_changed or any(after.source(space) is ContentType.IMAGE for space in spaces)
        picture = await self._picture(after.media) if examined else None
        (encoded,) = await self._encoder.encode([ItemContent(spaces, after.text, picture)])
        if isinstance(encoded, ServiceError):
            raise encoded
        return encoded

    async def _picture(self, media: MediaSource | None) -> bytes | None:
        match media:
            case Inline(data):
                return data
            case Stored(sha256):
                return await self._media.read(sha256, self._max_media_bytes)
            case None:
                return None


@dataclass(frozen=True, slots=True)
class _After:
    """What the item has after the change, next to what it had."""

    before: ItemState
    text: str | None
    media: MediaSource | None
    text_changed: bool
    media_changed: bool

    @classmethod
    async def of(cls, wish: UpdateRequest, state: ItemState) -> Self:
        text = state.text if wish.text is None else wish.text or None
        kept = Stored(state.sha256) if state.sha256 and not wish.remove_media else None
        media = wish.media or kept
        return cls(state, text, media, text != state.text, await _sha256(media) != state.sha256)

    @property
    def is_empty(self) -> bool:
        return self.text is None and self.media is None

    def source(self, space: Space) -> ContentType | None:
        return first_source(space, text=self.text is not None, picture=self.media is not None)

    def outdated_spaces(self, collection: Collection) -> list[Space]:
        """Return the spaces whose vector is to be made, because what it is made from changes."""
        changed = {ContentType.TEXT: self.text_changed, ContentType.IMAGE: self.media_changed}
        had_text, had_picture = self.before.text is not None, bool(self.before.sha256)
        outdated = []
        for space in collection.spaces:
            source = self.source(space)
            if source and (changed[source] or source is not first_source(space, text=had_text, picture=had_picture)):
                outdated.append(space)
        return outdated


async def _sha256(media: MediaSource | None) -> str:
    match media:
        case Inline(data):
            return (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()
        case Stored(sha256):
            return sha256
        case None:
            return ""


def _row_change(wish: UpdateRequest, vectors: Mapping[str, Matrix]) -> RowChange:
    return RowChange(wish.id, metadata=wish.metadata, vectors=vectors, expected_revision=wish.expected_revision)


def _own_spaces(collection: Collection) -> set[str]:
    return {space.name for space in collection.spaces if not space.model}


def _fingerprints(spaces: Sequence[Space]) -> dict[str, str]:
    return {space.name: space.fingerprint for space in spaces}
