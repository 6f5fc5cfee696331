"""The catalog, and what a fingerprint does and does not depend on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.content import ContentType
from services.common.vectors import Metric
from services.embedder.core import preprocessing
from services.embedder.core.catalog import (
    ImageTower,
    Model,
    ModelCatalog,
    ModelFile,
    Padding,
    Prefixes,
    TextProjection,
    TextTower,
)
from services.embedder.core.errors import ModelNotFoundError
from tests.unit.embedder.files import wanted

TRUNK = Model(
    name="trunk",
    dimensions=4,
    metric=Metric.COSINE,
    summary="Texts.",
    text=TextTower(ModelFile(Path("t.onnx"), "aa"), ModelFile(Path("t.json"), "bb"), 256, 4),
    image=None,
)
BOTH = Model(
    name="both",
    dimensions=3,
    metric=Metric.COSINE,
    summary="Texts and pictures.",
    text=TextProjection(ModelFile(Path("h.onnx"), "cc"), "trunk", 3),
    image=ImageTower(ModelFile(Path("i.onnx"), "dd"), wanted(), 3),
)


def fingerprints(trunk: Model = TRUNK, both: Model = BOTH, runtime: str = "onnxruntime") -> tuple[str, str]:
    catalog = ModelCatalog([trunk, both], runtime)
    return catalog.fingerprint("trunk"), catalog.fingerprint("both")


def tower() -> TextTower:
    assert isinstance(TRUNK.text, TextTower)
    return TRUNK.text


def picture() -> ImageTower:
    assert BOTH.image is not None
    return BOTH.image


def test_a_fingerprint_is_short_stable_and_hexadecimal() -> None:
    # Written down: a change here refuses every vector stored so far, so it must be meant.
    assert fingerprints() == ("ac0b7c6939a86dd594132acd73feba2c", "86322c7ccd1f552d3a94e63092070ffb")


@pytest.mark.parametrize(
    "changed",
    [
        replace(tower(), graph=ModelFile(Path("t.onnx"), "a0")),
        replace(tower(), tokenizer=ModelFile(Path("t.json"), "b0")),
        replace(tower(), max_tokens=128),
        replace(tower(), padding=Padding(300, 0)),
        replace(tower(), inputs=("input_ids",)),
        replace(tower(), prefixes=Prefixes(document="passage: ")),
    ],
)
def test_a_change_of_the_text_model_changes_its_fingerprint_and_those_after_it(changed: TextTower) -> None:
    trunk, both = fingerprints(trunk=replace(TRUNK, text=changed))
    assert trunk != fingerprints()[0]
    assert both != fingerprints()[1]


@pytest.mark.parametrize(
    "changed",
    [
        replace(BOTH, text=TextProjection(ModelFile(Path("h.onnx"), "c0"), "trunk", 3)),
        replace(BOTH, image=replace(picture(), graph=ModelFile(Path("i.onnx"), "d0"))),
        replace(BOTH, image=replace(picture(), preprocessing=wanted(size=32))),
        replace(BOTH, image=replace(picture(), preprocessing=wanted(background=(0, 0, 0)))),
        replace(BOTH, image=replace(picture(), preprocessing=replace(wanted(), interpolation="bilinear"))),
        replace(BOTH, image=replace(picture(), preprocessing=replace(wanted(), resize="crop"))),
        replace(BOTH, image=replace(picture(), preprocessing=replace(wanted(), mean=(0.5, 0.0, 0.0)))),
        replace(BOTH, image=replace(picture(), preprocessing=replace(wanted(), std=(0.5, 1.0, 1.0)))),
        replace(BOTH, image=None),
    ],
)
def test_a_change_of_head_or_pictures_changes_that_fingerprint_alone(changed: Model) -> None:
    trunk, both = fingerprints(both=changed)
    assert trunk == fingerprints()[0]
    assert both != fingerprints()[1]


def test_the_runtime_and_the_version_of_preprocessing_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprints()
    assert set(fingerprints(runtime="memory")).isdisjoint(before)
    monkeypatch.setattr(preprocessing, "VERSION", 2)
    assert fingerprints()[0] == before[0]
    assert fingerprints()[1] != before[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda model: replace(model, summary="Something else."),
        lambda model: replace(model, metric=Metric.DOT_PRODUCT),
        lambda model: replace(model, text=replace(model.text, graph=ModelFile(Path("moved.onnx"), "cc"))),
    ],
)
def test_what_leaves_the_vectors_alone_leaves_the_fingerprint_alone(change: Callable[[Model], Model]) -> None:
    assert fingerprints(both=change(BOTH)) == fingerprints()


def test_models_say_what_they_embed() -> None:
    assert TRUNK.inputs == (ContentType.TEXT,)
    assert BOTH.inputs == (ContentType.TEXT, ContentType.IMAGE)


def test_an_unknown_model_is_refused_with_those_there_are() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        ModelCatalog([TRUNK, BOTH], "r").get("clip")
    assert caught.value.metadata == {"model": "clip", "known": "both,trunk"}


def test_pages_go_by_name() -> None:
    catalog = ModelCatalog([TRUNK, BOTH], "r")
    first = catalog.page(None, 1)
    assert ([model.name for model in first.models], first.more) == (["both"], True)
    last = catalog.page("both", 1)
    assert ([model.name for model in last.models], last.more) == (["trunk"], False)
    assert catalog.page("trunk", 1).models == []
