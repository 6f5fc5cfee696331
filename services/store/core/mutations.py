"""Mutations of rows: upsert, update and delete, applied to the rows as they are at the commit."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Generic, TypeVar

from services.common.content import ContentType
from services.common.errors import ItemNotFoundError, RevisionError, ServiceError
from services.common.filters import Filter, matches
from services.common.vectors import Matrix
from services.store.core.rows import ALL_FIELDS, NO_FIELDS, CollectionSchema, Media, Row, RowField, RowFields
from services.store.core.validation import ValidatedRow, space_names, validate_not_empty

Rows = Mapping[str, Row]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WrittenRow:
    """A row that was committed, and its new revision."""

    id: str
    revision: int


@dataclass(frozen=True, slots=True)
class MutationResult(Generic[T]):
    """The rows to write and ids to delete, and the result for the caller."""

    result: T
    rows: Sequence[Row] = ()
    deletions: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Upsert:
    """Replaces rows."""

    inputs: Sequence[ValidatedRow | ServiceError]
    fields: RowFields = NO_FIELDS

    @property
    def ids(self) -> list[str]:
        """The ids of the rows it reads."""
        return [each.row.id for each in self.inputs if isinstance(each, ValidatedRow)]

    def apply(self, current: Rows, now: datetime) -> MutationResult[list[WrittenRow | ServiceError]]:
        """Replace each row that has the expected revision; the result has one entry per input, in order."""
        outcomes = [
            _replace_row(each, current.get(each.row.id), now) if isinstance(each, ValidatedRow) else each
            for each in self.inputs
        ]
        result = [WrittenRow(each.id, each.revision) if isinstance(each, Row) else each for each in outcomes]
        return MutationResult(result, [each for each in outcomes if isinstance(each, Row)])


@dataclass(frozen=True, slots=True)
class Update:
    """Changes some fields of a row. None keeps a field; `text` "" and `remove_media` remove one."""

    schema: CollectionSchema
    id: str
    text: str | None = None
    media: tuple[Media, ContentType] | None = None
    remove_media: bool = False
    metadata: Callable[[str], str] | None = None
    vectors: Mapping[str, Matrix] = field(default_factory=dict)
    expected_revision: int | None = None
    fields: RowFields = ALL_FIELDS

    @property
    def ids(self) -> list[str]:
        """The ids of the rows it reads."""
        return [self.id]

    def apply(self, current: Rows, now: datetime) -> MutationResult[Row]:
        """Change the row; the result is the new row.

        Raises:
            ItemNotFoundError: there is no such row.
            RevisionError: it has another revision than the expected one.
            MetadataError: the new metadata are invalid.
            ItemEmptyError: nothing would be left.
        """
        if self.id not in current:
            raise ItemNotFoundError(self.id)
        old = current[self.id]
        _check_revision(old.id, self.expected_revision, old)
        new = validate_not_empty(self._apply_to(old))
        new = replace(new, revision=old.revision + 1, updated=now)
        return MutationResult(new, [new])

    def _apply_to(self, old: Row) -> Row:
        new = replace(
            old,
            text=old.text if self.text is None else self.text or None,
            metadata_json=self.metadata(old.metadata_json) if self.metadata else old.metadata_json,
        )
        if self.remove_media:
            new = replace(new, media=None, content=ContentType.TEXT)
        elif self.media:
            new = replace(new, media=self.media[0], content=self.media[1])
        vectors = {**retained_vectors(self.schema, old, new), **self.vectors}
        return replace(new, vectors=vectors, spaces=space_names(self.schema, vectors))


@dataclass(frozen=True, slots=True)
class Delete:
    """Deletes the rows of `ids`, where there are any; with a `condition` only those that satisfy it."""

    ids: Sequence[str]
    condition: Filter | None = None

    @property
    def fields(self) -> RowFields:
        """The fields of those rows that it reads."""
        return frozenset({RowField.METADATA}) if self.condition else NO_FIELDS

    def apply(self, current: Rows, now: datetime) -> MutationResult[int]:
        """Delete the rows; the result is their number."""
        deleted = [row_id for row_id in dict.fromkeys(self.ids) if row_id in current and self._selects(current[row_id])]
        return MutationResult(len(deleted), deletions=deleted)

    def _selects(self, row: Row) -> bool:
        return satisfies(row, self.condition)


def satisfies(row: Row, condition: Filter | None) -> bool:
    """Return whether the row's metadata satisfy `condition`; None is satisfied by all."""
    return condition is None or matches(condition, json.loads(row.metadata_json))


def retained_vectors(schema: CollectionSchema, old: Row, new: Row) -> dict[str, Matrix]:
    """Return the vectors of `old` whose source is the same in `new`.

    The source of a space is the first of its content types that the item has. Vectors of a space without sources come
    from the caller and are kept.
    """
    kept = {}
    for name, vector in old.vectors.items():
        space = schema.space(name)
        sources = space.sources if space else ()
        if vector_source(sources, old) == vector_source(sources, new):
            kept[name] = vector
    return kept


def vector_source(sources: Sequence[ContentType], row: Row) -> tuple[ContentType, str] | None:
    """Return the content type that a space with `sources` embeds of `row`, and the text or hash that identifies it."""
    for source in sources:
        if row.media is not None and row.content is source:
            return source, row.media.sha256
        if source is ContentType.TEXT and row.text is not None:
            return source, row.text
    return None


def _replace_row(validated: ValidatedRow, old: Row | None, now: datetime) -> Row | ServiceError:
    try:
        _check_revision(validated.row.id, validated.expected_revision, old)
    except RevisionError as error:
        return error
    if old is None and (history := validated.history):
        return replace(validated.row, revision=history.revision, created=history.created, updated=history.updated)
    created, revision = (old.created, old.revision) if old else (now, 0)
    return replace(validated.row, revision=revision + 1, created=created, updated=now)


def _check_revision(row_id: str, expected: int | None, row: Row | None) -> None:
    actual = row.revision if row else 0
    if expected is not None and expected != actual:
        raise RevisionError(row_id, expected, actual)
