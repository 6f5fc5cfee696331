"""Repairs of single items: vectors made anew, references to lost media dropped."""

from functools import partial
from typing import Generic

from services.common.content import ContentType
from services.common.errors import ItemEmptyError, PreconditionError, ServiceError
from services.gateway.core.items import Collection, Space
from services.gateway.core.metadata_cache import MetadataCache
from services.gateway.core.store import ItemState, MediaReader, RowChange, RowEditor, ShownItem_co
from services.gateway.ingest.item_encoder import ItemContent, ItemEmbedder, first_source
from services.gateway.ingest.updater import Updater, UpdateRequest


class NotRepairedError(Exception):
    """Why something cannot be repaired here, for people to read."""


class Repairer(Generic[ShownItem_co]):
    """Repairs items, each in one write that is refused where the item is written meanwhile."""

    def __init__(
        self,
        catalogue: MetadataCache,
        encoder: ItemEmbedder,
        updater: Updater[ShownItem_co],
        rows: RowEditor[ShownItem_co],
        media: MediaReader,
        *,
        max_media_bytes: int,
    ) -> None:
        self._catalogue = catalogue
        self._encoder = encoder
        self._updater = updater
        self._rows = rows
        self._media = media
        self._max_media_bytes = max_media_bytes

    async def make_vector(self, name: str, item_id: str, space: str) -> None:
        """Embed an item's content for a space again.

        Raises:
            NotRepairedError: nobody but the caller can make the vector, or the content is gone.
            ServiceError: why the item could not be read, embedded or written.
        """
        await self._catalogue.with_collection(name, partial(self._make_vector, item_id, space))

    async def rewrite(self, name: str, item_id: str) -> None:
        """Write an item as it is, so that what is derived from it is right.

        Raises:
            ServiceError: why it could not be written.
        """
        await self._rows.update(name, RowChange(item_id), {})

    async def drop_media(self, name: str, item_id: str, sha256: str) -> None:
        """Drop an item's reference to an object, if it still has that one.

        Raises:
            NotRepairedError: nothing would be left of the item.
            ServiceError: why the item could not be read or written.
        """
        state = await self._rows.state(name, item_id)
        if state.sha256 != sha256:
            return
        wish = UpdateRequest(name, item_id, remove_media=True, expected_revision=state.revision)
        try:
            await self._updater.update(wish)
        except ItemEmptyError as error:
            raise NotRepairedError("nothing would be left of the item: delete it, or ingest it again") from error

    async def _make_vector(self, item_id: str, name: str, collection: Collection) -> None:
        space = next(space for space in collection.spaces if space.name == name)
        if not space.model:
            raise NotRepairedError(f"callers bring the vectors of {name}: ingest the item again")
        state = await self._rows.state(collection.name, item_id)
        (encoded,) = await self._encoder.encode([await self._contents(space, state)])
        if isinstance(encoded, ServiceError):
            raise encoded
        if name not in encoded.vectors:
            raise NotRepairedError(f"the item has nothing that {name} is made from")
        change = RowChange(item_id, vectors=encoded.vectors, expected_revision=state.revision)
        await self._rows.update(collection.name, change, {name: space.fingerprint})

    async def _contents(self, space: Space, state: ItemState) -> ItemContent:
        source = first_source(space, text=state.text is not None, picture=bool(state.sha256))
        picture = None
        if source is ContentType.IMAGE:
            picture = await self._media.read(state.sha256, self._max_media_bytes)
        return ItemContent([space], state.text, picture)


def describe_failure(error: Exception) -> str:
    """Return what to say of a repair that failed for `error`; raises it where it is a bug."""
    match error:
        case PreconditionError(reason="FINGERPRINT_MISMATCH"):
            return "the space's model makes other vectors now: back the collection up and restore it embedding anew"
        case NotRepairedError() | ServiceError():
            return str(error)
        case _:
            raise error
