"""Writes of items."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from services.common.content import ContentType
from services.common.errors import ArgumentError, ServiceError
from services.common.filters import Filter
from services.common.metadata import parse_metadata
from services.common.names import validate_item_id
from services.common.versions import Version
from services.store.core.collections import Collections
from services.store.core.mutations import Delete, Update, Upsert, WrittenRow, satisfies
from services.store.core.rows import CollectionSchema, Row, RowField
from services.store.core.table import Table
from services.store.core.validation import (
    MediaInput,
    RowInput,
    RowValidator,
    decode_vectors,
    validate_batch_size,
    validate_fingerprints,
    validate_text,
)
from services.store.data.merge_patch import apply_merge_patch


@dataclass(frozen=True, slots=True)
class Replace:
    """New metadata, a JSON object."""

    metadata_json: str


@dataclass(frozen=True, slots=True)
class Merge:
    """A JSON Merge Patch of the metadata."""

    patch_json: str


@dataclass(frozen=True, slots=True)
class UpdateInput:
    """An update of a request. None keeps a field; a text of "" and `remove_media` remove one."""

    id: str
    text: str | None = None
    media: MediaInput | None = None
    media_content: ContentType | None = None
    remove_media: bool = False
    metadata: Replace | Merge | None = None
    vectors: Mapping[str, bytes] = field(default_factory=dict)
    expected_revision: int | None = None


class Writer:
    """Validates writes and commits them; every method returns once its write is durable."""

    def __init__(self, collections: Collections, validator: RowValidator) -> None:
        self._collections = collections
        self._validator = validator

    async def upsert(
        self, collection: str, inputs: Sequence[RowInput], fingerprints: Mapping[str, str]
    ) -> tuple[list[WrittenRow | ServiceError], Version]:
        """Write the valid ones of `inputs` in one commit; return the outcome of each, in order, and the version.

        Raises:
            CollectionNotFoundError: there is no such collection.
            SpaceNotFoundError, FingerprintError: the fingerprints are not those of the collection's spaces.
            ArgumentError: there are no rows, or too many.
            OverloadedError: too many writes wait.
        """
        validate_batch_size("rows", len(inputs))
        table = await self._collections.table(collection)
        validate_fingerprints(table.schema, fingerprints)
        mutation = Upsert(await self._validator.validate(table.schema, inputs))
        committed = await self._collections.committer(table).commit(mutation)
        return committed.result, Version(table.schema.uid, committed.version)

    async def update(
        self, collection: str, update: UpdateInput, fingerprints: Mapping[str, str]
    ) -> tuple[Row, Version]:
        """Change fields of a row; return the row as committed, and the version.

        Raises:
            ItemNotFoundError: there is no such row.
            RevisionError: it has another revision than the expected one.
            InvalidError: a field is invalid, or the row would be empty.
        """
        table = await self._collections.table(collection)
        validate_fingerprints(table.schema, fingerprints)
        mutation = await self._prepare_update(table.schema, update)
        committed = await self._collections.committer(table).commit(mutation)
        return committed.result, Version(table.schema.uid, committed.version)

    async def delete(self, collection: str, selection: Sequence[str] | Filter) -> tuple[int, Version]:
        """Delete rows by id, or those that satisfy a filter, in one commit; return their number, and the version."""
        table = await self._collections.table(collection)
        committed = await self._collections.committer(table).commit(await _prepare_delete(table, selection))
        return committed.result, Version(table.schema.uid, committed.version)

    async def _prepare_update(self, schema: CollectionSchema, update: UpdateInput) -> Update:
        if update.remove_media and update.media is not None:
            raise ArgumentError("remove_media", True, "not together with media")
        if update.media is None and update.media_content is not None:
            raise ArgumentError("media_type", update.media_content.value, "needs media")
        mutation = Update(
            schema,
            validate_item_id(update.id),
            update.text and validate_text(update.text),
            remove_media=update.remove_media,
            metadata=_metadata_change(update.metadata),
            vectors=decode_vectors(schema, update.vectors),
            expected_revision=update.expected_revision,
        )
        media = await self._validator.store_media(update.media, update.media_content) if update.media else None
        return replace(mutation, media=media)


def _metadata_change(change: Replace | Merge | None) -> Callable[[str], str] | None:
    match change:
        case Replace(metadata_json):
            parse_metadata(metadata_json)
            return lambda _: metadata_json or "{}"
        case Merge(patch_json):
            parse_metadata(patch_json)
            return partial(apply_merge_patch, patch_json=patch_json)
        case None:
            return None


async def _prepare_delete(table: Table, selection: Sequence[str] | Filter) -> Delete:
    if isinstance(selection, Sequence):
        validate_batch_size("ids", len(selection))
        return Delete(selection)
    ids = [
        row.id async for rows in table.scan(frozenset({RowField.METADATA})) for row in rows if satisfies(row, selection)
    ]
    return Delete(ids, selection)
