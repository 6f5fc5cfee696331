"""Updates single items: fields left out are kept, vectors made from changed content are made again."""

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
from services.gateway.core.items import Collection, InlineMedia, MediaSource, Space, StoredMedia, validate_text
from services.gateway.core.metadata_cache import MetadataCache
from services.gateway.core.store import ItemState, ItemView_co, MediaReader, MetadataChange, RowChange, RowEditor
from services.gateway.ingest.item_embedder import ItemContent, ItemEmbedder, ItemVectors, build_row_media, first_source
from services.gateway.ingest.validation import validate_vectors

ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """An update of an item: None keeps a field, a text of "" removes it; `vectors` as in `NewItem`."""

    collection: str
    id: str
    text: str | None = None
    media: MediaSource | None = None
    remove_media: bool = False
    metadata: MetadataChange | None = None
    vectors: Mapping[str, bytes] = field(default_factory=dict)
    expected_revision: int | None = None

    @property
    def changes_content(self) -> bool:
        """Whether it may change the content that vectors are made from."""
        return self.text is not None or self.media is not None or self.remove_media


class Updater(Generic[ItemView_co]):
    """Updates items."""

    def __init__(
        self,
        cache: MetadataCache,
        item_embedder: ItemEmbedder,
        rows: RowEditor[ItemView_co],
        media: MediaReader,
        max_media_bytes: int,
    ) -> None:
        self._cache = cache
        self._item_embedder = item_embedder
        self._rows = rows
        self._media = media
        self._max_media_bytes = max_media_bytes

    async def update(self, request: UpdateRequest) -> tuple[ItemView_co, str]:
        """Commit the change; return the item and the version token that holds it.

        Without an expected revision, the update is tried again when another writer changes the row in between.

        Raises:
            ConflictError: the row has another revision than expected, or changed during each of `ATTEMPTS` tries.
            NotFoundError: no such collection, item, space or stored object.
            ItemEmptyError: nothing would be left of the item.
            InvalidError: a field of the request is not allowed.
        """
        validate_item_id(request.id)
        if request.text:
            validate_text(request.text)
        if request.media is not None and request.remove_media:
            raise ArgumentError("remove_media", True, "not together with media")
        return await self._cache.with_collection(request.collection, partial(self._update, request))

    async def _update(self, request: UpdateRequest, collection: Collection) -> tuple[ItemView_co, str]:
        vectors = validate_vectors(request.vectors, collection)
        if not request.changes_content:
            return await self._rows.update(collection.name, _row_change(request, vectors), {})
        update = partial(self._update_content, request, collection, vectors)
        if request.expected_revision is not None:
            return await update()
        return await retry(update, lambda error: isinstance(error, ConflictError), attempts=ATTEMPTS)

    async def _update_content(
        self, request: UpdateRequest, collection: Collection, vectors: Mapping[str, Matrix]
    ) -> tuple[ItemView_co, str]:
        state = await self._rows.get_state(collection.name, request.id)
        if request.expected_revision not in (None, state.revision):
            raise RevisionError(request.id, request.expected_revision or 0, state.revision)
        change = await _ContentChange.between(state, request)
        spaces = change.outdated_spaces(collection)
        if change.is_empty and not _spaces_without_model(collection) & (state.spaces | vectors.keys()):
            raise ItemEmptyError(request.id)
        embedded = await self._embed(change, spaces)
        row_change = RowChange(
            request.id,
            text=request.text if change.text_changed else None,
            media=build_row_media(request.media, embedded) if change.media_changed else None,
            remove_media=request.remove_media and change.media_changed,
            metadata=request.metadata,
            vectors={**embedded.vectors, **vectors},
            expected_revision=state.revision,
        )
        return await self._rows.update(collection.name, row_change, _fingerprints(spaces))

    async def _embed(self, change: "_ContentChange", spaces: Sequence[Space]) -> ItemVectors:
        needs_image = change.media_changed or any(change.source(space) is ContentType.IMAGE for space in spaces)
        image = await self._load_image(change.media) if needs_image else None
        (embedded,) = await self._item_embedder.embed([ItemContent(spaces, change.text, image)])
        if isinstance(embedded, ServiceError):
            raise embedded
        return embedded

    async def _load_image(self, media: MediaSource | None) -> bytes | None:
        match media:
            case InlineMedia(data):
                return data
            case StoredMedia(sha256):
                return await self._media.read_media(sha256, self._max_media_bytes)
            case None:
                return None


@dataclass(frozen=True, slots=True)
class _ContentChange:
    """The item's content after the update, and which of it differs from `before`."""

    before: ItemState
    text: str | None
    media: MediaSource | None
    text_changed: bool
    media_changed: bool

    @classmethod
    async def between(cls, before: ItemState, request: UpdateRequest) -> Self:
        text = before.text if request.text is None else request.text or None
        kept = StoredMedia(before.sha256) if before.sha256 and not request.remove_media else None
        media = request.media or kept
        return cls(before, text, media, text != before.text, await _sha256(media) != before.sha256)

    @property
    def is_empty(self) -> bool:
        return self.text is None and self.media is None

    def source(self, space: Space) -> ContentType | None:
        return first_source(space, text=self.text is not None, image=self.media is not None)

    def outdated_spaces(self, collection: Collection) -> list[Space]:
        """Return the spaces whose vector has to be made again, because its source changes."""
        changed = {ContentType.TEXT: self.text_changed, ContentType.IMAGE: self.media_changed}
        had_text, had_image = self.before.text is not None, bool(self.before.sha256)
        outdated = []
        for space in collection.spaces:
            source = self.source(space)
            if source and (changed[source] or source is not first_source(space, text=had_text, image=had_image)):
                outdated.append(space)
        return outdated


async def _sha256(media: MediaSource | None) -> str:
    match media:
        case InlineMedia(data):
            return (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()
        case StoredMedia(sha256):
            return sha256
        case None:
            return ""


def _row_change(request: UpdateRequest, vectors: Mapping[str, Matrix]) -> RowChange:
    return RowChange(
        request.id, metadata=request.metadata, vectors=vectors, expected_revision=request.expected_revision
    )


def _spaces_without_model(collection: Collection) -> set[str]:
    return {space.name for space in collection.spaces if not space.model}


def _fingerprints(spaces: Sequence[Space]) -> dict[str, str]:
    return {space.name: space.fingerprint for space in spaces}
