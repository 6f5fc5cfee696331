"""What writes do to rows, decided on the rows as they are at the commit."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Generic, TypeVar

from services.common.content import ContentType
from services.common.errors import ItemNotFoundError, RevisionError, ServiceError
from services.common.filters import Filter, matches
from services.common.vectors import Matrix
from services.store.core.rows import EVERYTHING, NOTHING, CollectionSchema, Media, Part, Parts, Row
from services.store.core.validation import ValidatedRow, check_not_empty, in_order

Rows = Mapping[str, Row]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Written:
    """A row that was committed, and its new revision."""

    id: str
    revision: int


@dataclass(frozen=True, slots=True)
class MutationResult(Generic[T]):
    """What is to be written and removed, and what to answer once it is."""

    answer: T
    rows: Sequence[Row] = ()
    deletions: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Upsert:
    """Replaces rows."""

    admitted: Sequence[ValidatedRow | ServiceError]
    parts: Parts = NOTHING

    @property
    def ids(self) -> list[str]:
        """The rows it looks at."""
        return [each.row.id for each in self.admitted if isinstance(each, ValidatedRow)]

    def decide(self, current: Rows, now: datetime) -> MutationResult[list[Written | ServiceError]]:
        """Replace each row that has the revision expected; answer row by row."""
        outcomes = [
            _replacing(each, current.get(each.row.id), now) if isinstance(each, ValidatedRow) else each
            for each in self.admitted
        ]
        answer = [Written(each.id, each.revision) if isinstance(each, Row) else each for each in outcomes]
        return MutationResult(answer, [each for each in outcomes if isinstance(each, Row)])


@dataclass(frozen=True, slots=True)
class Update:
    """Changes some parts of a row; None keeps a part. `text` "" and `remove_media` take one away."""

    definition: CollectionSchema
    id: str
    text: str | None = None
    media: tuple[Media, ContentType] | None = None
    remove_media: bool = False
    metadata: Callable[[str], str] | None = None
    vectors: Mapping[str, Matrix] = field(default_factory=dict)
    expected_revision: int | None = None
    parts: Parts = EVERYTHING

    @property
    def ids(self) -> list[str]:
        """The rows it looks at."""
        return [self.id]

    def decide(self, current: Rows, now: datetime) -> MutationResult[Row]:
        """Change the row; answer it as it will be.

        Raises:
            ItemNotFoundError: there is no such row.
            RevisionError: it has another revision.
            MetadataError: the metadata that come out cannot be.
            ItemEmptyError: nothing would be left.
        """
        if self.id not in current:
            raise ItemNotFoundError(self.id)
        old = current[self.id]
        _check_revision(old.id, self.expected_revision, old)
        new = check_not_empty(self._changed(old))
        new = replace(new, revision=old.revision + 1, updated=now)
        return MutationResult(new, [new])

    def _changed(self, old: Row) -> Row:
        new = replace(
            old,
            text=old.text if self.text is None else self.text or None,
            metadata_json=self.metadata(old.metadata_json) if self.metadata else old.metadata_json,
        )
        if self.remove_media:
            new = replace(new, media=None, content=ContentType.TEXT)
        elif self.media:
            new = replace(new, media=self.media[0], content=self.media[1])
        vectors = {**retained_vectors(self.definition, old, new), **self.vectors}
        return replace(new, vectors=vectors, spaces=in_order(self.definition, vectors))


@dataclass(frozen=True, slots=True)
class Delete:
    """Removes those of `ids` that have a row, and with a condition only those that satisfy it."""

    ids: Sequence[str]
    condition: Filter | None = None

    @property
    def parts(self) -> Parts:
        """The parts of rows it looks at."""
        return frozenset({Part.METADATA}) if self.condition else NOTHING

    def decide(self, current: Rows, now: datetime) -> MutationResult[int]:
        """Remove the rows; answer how many."""
        doomed = [row_id for row_id in dict.fromkeys(self.ids) if row_id in current and self._selects(current[row_id])]
        return MutationResult(len(doomed), deletions=doomed)

    def _selects(self, row: Row) -> bool:
        return satisfies(row, self.condition)


def satisfies(row: Row, condition: Filter | None) -> bool:
    """Return whether the row's metadata satisfy `condition`; None is satisfied by all."""
    return condition is None or matches(condition, json.loads(row.metadata_json))


def retained_vectors(definition: CollectionSchema, old: Row, new: Row) -> dict[str, Matrix]:
    """Return those of the old row's vectors that were not made from what the new row has otherwise.

    A space is made from the first of its sources that an item has; one without sources, by the caller, is kept.
    """
    kept = {}
    for name, vector in old.vectors.items():
        space = definition.space(name)
        sources = space.sources if space else ()
        if vector_source(sources, old) == vector_source(sources, new):
            kept[name] = vector
    return kept


def vector_source(sources: Sequence[ContentType], row: Row) -> tuple[ContentType, str] | None:
    """Return the content that a space with `sources` takes from `row`, and what tells it from another."""
    for source in sources:
        if row.media is not None and row.content is source:
            return source, row.media.sha256
        if source is ContentType.TEXT and row.text is not None:
            return source, row.text
    return None


def _replacing(admitted: ValidatedRow, old: Row | None, now: datetime) -> Row | ServiceError:
    try:
        _check_revision(admitted.row.id, admitted.expected_revision, old)
    except RevisionError as error:
        return error
    if old is None and (history := admitted.history):
        return replace(admitted.row, revision=history.revision, created=history.created, updated=history.updated)
    created, revision = (old.created, old.revision) if old else (now, 0)
    return replace(admitted.row, revision=revision + 1, created=created, updated=now)


def _check_revision(row_id: str, expected: int | None, row: Row | None) -> None:
    actual = row.revision if row else 0
    if expected is not None and expected != actual:
        raise RevisionError(row_id, expected, actual)
