import pytest

from services.common.content import ContentType
from services.common.errors import ItemEmptyError, ItemNotFoundError, RevisionError
from services.store.core.mutations import Update
from services.store.core.rows import EPOCH, Media, Row
from tests.unit.store.rows import NOW, PHOTOS, row, vector, vectors

PICTURE = Media("aa" * 32, "image/png", 1)
OTHER = Media("bb" * 32, "image/png", 1)


def apply_update(old: Row, **fields: object) -> Row:
    outcome = Update(PHOTOS, old.id, **fields).apply({old.id: old}, NOW)  # type: ignore[arg-type]  # test brevity
    assert list(outcome.rows) == [outcome.result]
    return outcome.result


def with_picture(**fields: object) -> Row:
    return row("x", content=ContentType.IMAGE, media=PICTURE, vectors=vectors("clip", "text", "own"), **fields)


def text_only() -> Row:
    return row("x", vectors=vectors("clip", "text", "own"))


@pytest.mark.parametrize(
    ("old", "change", "kept"),
    [
        (with_picture(), {}, ("clip", "text", "own")),
        (with_picture(), {"text": "a text"}, ("clip", "text", "own")),
        (with_picture(), {"text": "new"}, ("clip", "own")),
        (with_picture(), {"text": ""}, ("clip", "own")),
        (with_picture(), {"media": (OTHER, ContentType.IMAGE)}, ("text", "own")),
        (with_picture(), {"media": (PICTURE, ContentType.IMAGE)}, ("clip", "text", "own")),
        (with_picture(), {"remove_media": True}, ("text", "own")),
        (text_only(), {"text": "new"}, ("own",)),
        (text_only(), {"media": (PICTURE, ContentType.IMAGE)}, ("text", "own")),
        (text_only(), {"metadata": lambda _: '{"a":1}'}, ("clip", "text", "own")),
    ],
)
def test_a_vector_stays_while_what_it_was_made_from_does(old: Row, change: object, kept: tuple[str, ...]) -> None:
    new = apply_update(old, **change)  # type: ignore[arg-type]  # test brevity
    assert (new.spaces, set(new.vectors)) == (kept, set(kept))


def test_a_vector_given_replaces_the_old() -> None:
    new = apply_update(text_only(), text="new", vectors={"text": vector(3, 4)})
    assert new.spaces == ("text", "own")
    assert new.vectors["text"].tolist() == [3, 4]


def test_an_update_counts_and_keeps_when_it_was_made() -> None:
    new = apply_update(row("x", revision=4), text="new")
    assert (new.revision, new.created, new.updated) == (5, EPOCH, NOW)


def test_an_item_may_live_by_its_vector_alone() -> None:
    assert apply_update(text_only(), text="").spaces == ("own",)


def test_an_item_with_nothing_left_is_refused() -> None:
    with pytest.raises(ItemEmptyError):
        apply_update(row("x", vectors=vectors("text"), spaces=("text",)), text="")


def test_what_is_not_there_cannot_be_updated() -> None:
    with pytest.raises(ItemNotFoundError):
        Update(PHOTOS, "x", text="new").apply({}, NOW)


def test_another_revision_is_refused() -> None:
    with pytest.raises(RevisionError):
        apply_update(row("x", revision=2), expected_revision=1)
