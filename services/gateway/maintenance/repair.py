"""Repairs single items: embeds vectors again, drops references to lost media."""

from functools import partial
from typing import Generic

from services.common.content import ContentType
from services.common.errors import ItemEmptyError, PreconditionError, ServiceError
from services.gateway.core.items import Collection, Space
from services.gateway.core.metadata_cache import MetadataCache
from services.gateway.core.store import ItemState, ItemView_co, MediaReader, RowChange, RowEditor
from services.gateway.ingest.item_embedder import ItemContent, ItemEmbedder, first_source
from services.gateway.ingest.updater import Updater, UpdateRequest


class NotRepairedError(Exception):
    """A finding cannot be repaired; the message is for people to read."""


class Repairer(Generic[ItemView_co]):
    """Repairs items, each in one write that fails if another writer changes the item in between."""

    def __init__(
        self,
        cache: MetadataCache,
        item_embedder: ItemEmbedder,
        updater: Updater[ItemView_co],
        rows: RowEditor[ItemView_co],
        media: MediaReader,
        *,
        max_media_bytes: int,
    ) -> None:
        self._cache = cache
        self._item_embedder = item_embedder
        self._updater = updater
        self._rows = rows
        self._media = media
        self._max_media_bytes = max_media_bytes

    async def make_vector(self, name: str, item_id: str, space: str) -> None:
        """Embed an item's content for a space again.

        Raises:
            NotRepairedError: the space has no model, or the item has no content for it.
            ServiceError: the item could not be read, embedded or written.
        """
        await self._cache.with_collection(name, partial(self._make_vector, item_id, space))

    async def rewrite(self, name: str, item_id: str) -> None:
        """Write an item unchanged, which updates the fields derived from it.

        Raises:
            ServiceError: it could not be written.
        """
        await self._rows.update(name, RowChange(item_id), {})

    async def drop_media(self, name: str, item_id: str, sha256: str) -> None:
        """Drop an item's reference to an object, if it still refers to that one.

        Raises:
            NotRepairedError: nothing would be left of the item.
            ServiceError: the item could not be read or written.
        """
        state = await self._rows.get_state(name, item_id)
        if state.sha256 != sha256:
            return
        request = UpdateRequest(name, item_id, remove_media=True, expected_revision=state.revision)
        try:
            await self._updater.update(request)
        except ItemEmptyError as error:
            raise NotRepairedError("nothing would be left of the item: delete it, or ingest it again") from error

    async def _make_vector(self, item_id: str, name: str, collection: Collection) -> None:
        space = next(space for space in collection.spaces if space.name == name)
        if not space.model:
            raise NotRepairedError(f"the vectors of {name} come from callers: ingest the item again")
        state = await self._rows.get_state(collection.name, item_id)
        (embedded,) = await self._item_embedder.embed([await self._content(space, state)])
        if isinstance(embedded, ServiceError):
            raise embedded
        if name not in embedded.vectors:
            raise NotRepairedError(f"the item has no content that {name} embeds")
        change = RowChange(item_id, vectors=embedded.vectors, expected_revision=state.revision)
        await self._rows.update(collection.name, change, {name: space.fingerprint})

    async def _content(self, space: Space, state: ItemState) -> ItemContent:
        source = first_source(space, text=state.text is not None, image=bool(state.sha256))
        image = None
        if source is ContentType.IMAGE:
            image = await self._media.read_media(state.sha256, self._max_media_bytes)
        return ItemContent([space], state.text, image)


def describe_failure(error: Exception) -> str:
    """Return the reason of a failed repair for people to read; re-raises an unexpected `error`."""
    match error:
        case PreconditionError(reason="FINGERPRINT_MISMATCH"):
            return "the model's fingerprint has changed: back up the collection and restore it with new embeddings"
        case NotRepairedError() | ServiceError():
            return str(error)
        case _:
            raise error
