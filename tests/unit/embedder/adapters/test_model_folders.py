"""Reading `model.json` files: the built-in ones, and what is wrong with others."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from services.embedder.adapters.model_files import verify_file
from services.embedder.adapters.model_folders import read_models
from services.embedder.core.catalog import ModelFile, Padding, Purpose, TextProjection, TextTower
from services.embedder.core.errors import ModelFileError
from services.embedder.settings import BUILT_IN_MODELS

HASH = "0" * 64
TEXT = {"file": "t.onnx", "sha256": HASH, "tokenizer": "t.json", "tokenizer_sha256": HASH, "max_tokens": 8}
IMAGE = {
    "file": "i.onnx",
    "sha256": HASH,
    "size": 8,
    "resize": "pad",
    "background": [255, 255, 255],
    "interpolation": "bicubic",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}


def manifest(**changes: Any) -> dict[str, Any]:
    whole = {"name": "m", "version": "1", "dimensions": 4, "metric": "cosine", "licence": "MIT", "summary": "S."}
    return {**whole, "text": TEXT, **changes}


def write(folder: Path, *manifests: dict[str, Any]) -> Path:
    for number, each in enumerate(manifests):
        place = folder / str(number)
        place.mkdir()
        (place / "model.json").write_text(json.dumps(each))
    return folder


def test_the_built_in_models() -> None:
    mini, minilm = sorted(read_models(BUILT_IN_MODELS), key=lambda model: model.name)
    assert (mini.name, minilm.name) == ("medley-mini", "minilm")
    assert isinstance(minilm.text, TextTower)
    assert isinstance(mini.text, TextProjection)
    assert mini.text.base == "minilm"
    assert mini.image is not None
    assert minilm.image is None
    assert minilm.summary.endswith("Licence: Apache-2.0.")
    for tower in (mini.text, mini.image, minilm.text):
        assert verify_file(tower.graph).is_file()
    assert verify_file(minilm.text.tokenizer).is_file()


def test_other_folders_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, manifest())
    (tmp_path / "notes").mkdir()
    assert [model.name for model in read_models(tmp_path)] == ["m"]


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"name": "../m"}, "name"),
        ({"dimensions": 0}, "dimensions"),
        ({"metric": "manhattan"}, "metric"),
        ({"licence": ""}, "licence"),
        ({"text": None}, "neither text nor image"),
        ({"text": {**TEXT, "file": "../t.onnx"}}, "file"),
        ({"text": {**TEXT, "file": ".."}}, "file"),
        ({"text": {**TEXT, "sha256": "0"}}, "sha256"),
        ({"text": {**TEXT, "lower_case": False}}, "lower_case"),
        ({"text": {**TEXT, "pad_to": 8}}, "pad_to and pad_id must be given together"),
        ({"text": {**TEXT, "pad_to": 7, "pad_id": 0}}, "pad_to is 7, less than max_tokens, 8"),
        ({"text": {**TEXT, "inputs": ["pixels"]}}, "inputs"),
        ({"text": {**TEXT, "prefixes": {"title": "t: "}}}, "title"),
        ({"audio": {"file": "a.onnx", "sha256": HASH}}, "features"),
        ({"text": {"file": "h.onnx", "sha256": HASH, "base": "nobody"}}, "builds on 'nobody'"),
        ({"text": {"file": "h.onnx", "sha256": HASH, "base": "m"}}, "builds on 'm'"),
        ({"image": {**IMAGE, "resize": "stretch"}}, "resize"),
        ({"image": {**IMAGE, "std": [0.5, 0.5, 0]}}, "std"),
        ({"image": {**IMAGE, "background": [256, 0, 0]}}, "background"),
        ({"image": {**IMAGE, "crop": 7}}, "crop"),
        ({"image": {name: value for name, value in IMAGE.items() if name != "mean"}}, "mean"),
    ],
)
def test_a_wrong_manifest_is_refused_by_place(tmp_path: Path, wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(ModelFileError, match=problem) as caught:
        read_models(write(tmp_path, manifest(**wrong)))
    assert str(tmp_path) in str(caught.value)


def test_no_json_is_refused(tmp_path: Path) -> None:
    write(tmp_path, manifest())
    (tmp_path / "0" / "model.json").write_text("{")
    with pytest.raises(ModelFileError, match=r"0/model\.json"):
        read_models(tmp_path)


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="two models are called 'm'"):
        read_models(write(tmp_path, manifest(), manifest()))


def test_two_folders_make_one_catalogue(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine", manifest(text={"file": "h.onnx", "sha256": HASH, "base": "minilm"}))
    names = [model.name for model in read_models(BUILT_IN_MODELS, tmp_path / "mine")]
    assert sorted(names) == ["m", "medley-mini", "minilm"]


def test_one_name_in_two_folders_is_refused_with_both_places(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        write(folder, manifest())
    with pytest.raises(ModelFileError, match="two models are called 'm'") as caught:
        read_models(*folders)
    assert all(str(folder) in str(caught.value) for folder in folders)


def test_what_a_text_tower_may_say_besides(tmp_path: Path) -> None:
    said = {"pad_to": 64, "pad_id": 1, "inputs": ["input_ids"], "prefixes": {"query": "q: "}}
    model = read_models(write(tmp_path, manifest(text={**TEXT, **said})))[0]
    assert isinstance(model.text, TextTower)
    assert (model.text.padding, model.text.inputs) == (Padding(64, 1), ("input_ids",))
    assert [model.prefix(purpose) for purpose in (None, Purpose.QUERY, Purpose.DOCUMENT)] == ["", "q: ", ""]


@pytest.mark.parametrize("folder", ["", "missing"])
def test_a_folder_without_models_is_refused(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ModelFileError, match=r"holds a model\.json"):
        read_models(tmp_path / folder)


def test_an_altered_file_is_refused_with_both_hashes(tmp_path: Path) -> None:
    file = tmp_path / "t.onnx"
    file.write_bytes(b"altered")
    with pytest.raises(ModelFileError) as caught:
        verify_file(ModelFile(file, HASH))
    assert str(file) in str(caught.value)
    assert f"expected sha256 {HASH}, it has {hashlib.sha256(b'altered').hexdigest()}" in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file"):
        verify_file(ModelFile(tmp_path / "t.onnx", HASH))
