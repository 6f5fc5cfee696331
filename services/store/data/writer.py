"""Writes to a collection."""

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
from services.store.core.mutations import Delete, Update, Upsert, Written, satisfies
from services.store.core.rows import CollectionSchema, Part, Row
from services.store.core.table import Table
from services.store.core.validation import (
    MediaInput,
    RowInput,
    RowValidator,
    check_fingerprints,
    check_number,
    checked_text,
    checked_vectors,
)
from services.store.data.merge_patch import merged


@dataclass(frozen=True, slots=True)
class Replace:
    """New metadata, a JSON object."""

    metadata_json: str


@dataclass(frozen=True, slots=True)
class Merge:
    """A JSON Merge Patch of the metadata."""

    patch_json: str


@dataclass(frozen=True, slots=True)
class UpdateDraft:
    """An update as given; None keeps a part, a text of "" and `remove_media` take one away."""

    id: str
    text: str | None = None
    media: MediaInput | None = None
    media_content: ContentType | None = None
    remove_media: bool = False
    metadata: Replace | Merge | None = None
    vectors: Mapping[str, bytes] = field(default_factory=dict)
    expected_revision: int | None = None


class Writer:
    """Checks what is to be written and commits it. Every answer is durable."""

    def __init__(self, collections: Collections, intake: RowValidator) -> None:
        self._collections = collections
        self._intake = intake

    async def upsert(
        self, collection: str, drafts: Sequence[RowInput], fingerprints: Mapping[str, str]
    ) -> tuple[list[Written | ServiceError], Version]:
        """Write the good ones of `drafts` in one commit; return what became of each, in order, and the version.

        Raises:
            CollectionNotFoundError: no such collection.
            SpaceNotFoundError, FingerprintError: vectors that do not belong in the collection.
            ArgumentError: no rows, or too many.
            OverloadedError: too many writes wait.
        """
        check_number("rows", len(drafts))
        table = await self._collections.table(collection)
        check_fingerprints(table.definition, fingerprints)
        plan = Upsert(await self._intake.admit(table.definition, drafts))
        committed = await self._collections.committer(table).commit(plan)
        return committed.answer, Version(table.definition.uid, committed.version)

    async def update(self, collection: str, draft: UpdateDraft, fingerprints: Mapping[str, str]) -> tuple[Row, Version]:
        """Change parts of a row; return it as committed, and the version.

        Raises:
            ItemNotFoundError: no such row.
            RevisionError: it was written meanwhile.
            InvalidError: a part that cannot be, or nothing would be left.
        """
        table = await self._collections.table(collection)
        check_fingerprints(table.definition, fingerprints)
        plan = await self._planned(table.definition, draft)
        committed = await self._collections.committer(table).commit(plan)
        return committed.answer, Version(table.definition.uid, committed.version)

    async def delete(self, collection: str, selection: Sequence[str] | Filter) -> tuple[int, Version]:
        """Remove rows by id, or those that satisfy a filter, in one commit; return how many, and the version."""
        table = await self._collections.table(collection)
        committed = await self._collections.committer(table).commit(await _doomed(table, selection))
        return committed.answer, Version(table.definition.uid, committed.version)

    async def _planned(self, definition: CollectionSchema, draft: UpdateDraft) -> Update:
        if draft.remove_media and draft.media is not None:
            raise ArgumentError("remove_media", True, "not together with media")
        if draft.media is None and draft.media_content is not None:
            raise ArgumentError("media_type", draft.media_content.value, "needs media")
        update = Update(
            definition,
            validate_item_id(draft.id),
            draft.text and checked_text(draft.text),
            remove_media=draft.remove_media,
            metadata=_metadata_change(draft.metadata),
            vectors=checked_vectors(definition, draft.vectors),
            expected_revision=draft.expected_revision,
        )
        media = await self._intake.media(draft.media, draft.media_content) if draft.media else None
        return replace(update, media=media)


def _metadata_change(change: Replace | Merge | None) -> Callable[[str], str] | None:
    match change:
        case Replace(metadata_json):
            parse_metadata(metadata_json)
            return lambda _: metadata_json or "{}"
        case Merge(patch_json):
            parse_metadata(patch_json)
            return partial(merged, patch_json=patch_json)
        case None:
            return None


async def _doomed(table: Table, selection: Sequence[str] | Filter) -> Delete:
    if isinstance(selection, Sequence):
        check_number("ids", len(selection))
        return Delete(selection)
    ids = [row.id async for rows in table.scan(frozenset({Part.METADATA})) for row in rows if satisfies(row, selection)]
    return Delete(ids, selection)
