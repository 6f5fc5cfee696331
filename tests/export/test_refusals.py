"""What is not built, and what is left behind of it: nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra export")
pytest.importorskip("transformers", reason="needs the extra export")

import onnx
import torch
import transformers
from onnx import numpy_helper

from services.embedder.export import graphs
from services.embedder.export.building import BuildOptions, build
from services.embedder.export.console import Console
from services.embedder.export.errors import AccuracyError, ExportError
from services.embedder.export.loading import preprocessing
from tests.export import tiny

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts") / "tiny"
    folder.mkdir()
    tiny.sentences(folder)
    return folder


@pytest.fixture
def model(texts: Path, tmp_path: Path) -> Path:
    """A text model's folder, for the test to spoil."""
    return Path(shutil.copytree(texts, tmp_path / "model"))


def refused(folder: Path, out: Path, kind: type[ExportError] = ExportError, **options: Any) -> str:
    """Return why the model of `folder` is not built, nothing being left."""
    before = sorted(out.rglob("*")) if out.exists() else None
    with pytest.raises(kind) as caught:
        build([str(folder)], BuildOptions(out, **options), QUIET)
    assert (sorted(out.rglob("*")) if out.exists() else None) == before
    return str(caught.value)


def test_a_model_under_the_threshold_is_refused(model: Path, tmp_path: Path) -> None:
    problem = refused(model, tmp_path / "out", AccuracyError, precision="int8", min_cosine=0.9999999)
    assert "text: too far from the original" in problem
    assert "expected at least 0.9999999" in problem


def test_a_wrong_graph_is_refused(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(tower: Any, example: Any, names: Any, path: Path, precision: Any) -> None:
        write(tower, example, names, path, precision)
        graph = onnx.load(str(path))
        weight = max(graph.graph.initializer, key=lambda each: len(each.raw_data))
        values = numpy_helper.to_array(weight)
        weight.CopyFrom(numpy_helper.from_array(values[::-1].copy(), weight.name))
        onnx.save(graph, str(path))

    write = graphs.write
    monkeypatch.setattr(graphs, "write", spoilt)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("stays")
    assert "too far" in refused(model, tmp_path / "out", AccuracyError)


def test_a_graph_with_a_number_that_is_none_is_refused(model: Path, tmp_path: Path) -> None:
    weights = transformers.AutoModel.from_pretrained(model)
    with torch.no_grad():
        weights.encoder.layer[0].output.dense.weight[0, 0] = 3e38  # more than float16 has
    weights.save_pretrained(model)
    assert "too far" in refused(model, tmp_path / "out", AccuracyError, precision="fp16")


def test_another_tokenizer_is_refused(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from services.embedder.export import loading

    def wrong(source: Any) -> tuple[Any, Any]:
        ours, original = right(source)
        ours.normalizer = None
        return ours, original

    right = loading.load_tokenizers
    monkeypatch.setattr(loading, "load_tokenizers", wrong)
    assert "exported tokenizer differs on the golden text" in refused(model, tmp_path / "out")


def test_an_unknown_family_is_refused_with_those_there_are(model: Path, tmp_path: Path) -> None:
    tiny.change(model / "config.json", model_type="whisper")
    problem = refused(model, tmp_path / "out")
    assert "is of type 'whisper'" in problem
    assert all(name in problem for name in ("clip", "siglip", "vit", "clap", "bert", "xlm-roberta"))


def test_the_name_alone_makes_no_family(model: Path, tmp_path: Path) -> None:
    named = model.rename(tmp_path / "clip-vit-base-patch32")
    tiny.change(named / "config.json", model_type="gpt2")
    assert "is of type 'gpt2'" in refused(named, tmp_path / "out")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot load"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"damaged"), "cannot load"),
        (lambda folder: (folder / "modules.json").unlink(), "no modules.json"),
        (lambda folder: tiny.change(folder / "config.json", num_hidden_layers=3), "lacks"),
        (lambda folder: tiny.change(folder / "config.json", vocab_size=7), "lacks weights|cannot load"),
        (lambda folder: tiny.change(folder / "config.json", architectures=["BertForSequenceClassification"]), "scores"),
        (
            lambda folder: tiny.write_json(
                folder / "modules.json", [{"type": "a.Transformer"}, {"type": "a.Pooling"}, {"type": "a.Dense"}]
            ),
            "is made of Transformer, Pooling, Dense",
        ),
        (
            lambda folder: tiny.change(
                folder / "1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_lasttoken=True
            ),
            "pools by lasttoken",
        ),
        (lambda folder: tiny.change(folder / "1_Pooling/config.json", pooling_mode_cls_token=True), "pools by"),
        (lambda folder: tiny.change(folder / "1_Pooling/config.json", include_prompt=False), "excludes prompts"),
    ],
)
def test_what_is_not_whole_is_refused(
    model: Path, tmp_path: Path, spoil: Callable[[Path], object], problem: str
) -> None:
    spoil(model)
    assert re.search(problem, refused(model, tmp_path / "out"))


def test_naflex_is_refused_with_what_to_take(model: Path, tmp_path: Path) -> None:
    tiny.change(model / "config.json", model_type="siglip2")
    assert "siglip2-base-patch16-224" in refused(model, tmp_path / "out")


def test_prefixes_are_for_texts(tmp_path: Path) -> None:
    (tmp_path / "vit").mkdir()
    tiny.vit(tmp_path / "vit")
    assert "for text models" in refused(tmp_path / "vit", tmp_path / "out", query_prefix="q: ")


def test_a_model_that_is_there_is_not_replaced_unasked(model: Path, tmp_path: Path) -> None:
    (first,) = build([str(model)], BuildOptions(tmp_path / "out"), QUIET)
    before = (first / "model.json").read_bytes()
    assert "--replace" in refused(model, tmp_path / "out")
    (again,) = build([str(model)], BuildOptions(tmp_path / "out", replace=True, query_prefix="q: "), QUIET)
    assert again == first
    assert (again / "model.json").read_bytes() != before
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["model"]


def test_a_refused_replacement_leaves_the_model_that_was_there(model: Path, tmp_path: Path) -> None:
    build([str(model)], BuildOptions(tmp_path / "out"), QUIET)
    refused(model, tmp_path / "out", AccuracyError, replace=True, min_cosine=1.0, precision="int8", name="model")


def test_a_picture_that_is_made_otherwise_is_refused() -> None:
    steps = {"resample": 3, "image_mean": [0, 0, 0], "image_std": [1, 1, 1], "size": {"shortest_edge": 224}}
    crop = {"do_center_crop": True, "crop_size": {"height": 224, "width": 224}}
    assert preprocessing({**steps, **crop}, 224).resize == "crop"
    assert preprocessing({**steps, "size": {"height": 224, "width": 224}}, 224).resize == "squash"
    for wrong in (
        {"size": {"shortest_edge": 256}, **crop},
        {"size": {"shortest_edge": 224}},
        {"size": {"longest_edge": 224}},
        {"size": {"height": 384, "width": 384}},
        {"do_rescale": False, **crop},
        {"rescale_factor": 1.0, **crop},
        {"resample": 4, **crop},
        {"image_mean": [0.5], **crop},
        {"do_resize": False, **crop},
    ):
        with pytest.raises(ExportError, match="its image processor"):
            preprocessing({**steps, **wrong}, 224)


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "services.embedder.export", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=200, check=False
    )


def test_the_command_builds_a_folder_without_a_network(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    offline = {"HF_HUB_OFFLINE": "1", "HTTPS_PROXY": "http://127.0.0.1:9"}
    done = run("build", str(model), "--target", "onnx", "--out", str(out), "--name", "mine", **offline)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(out / "mine")]
    assert "cosine to the original" in done.stderr
    assert "EMBEDDER_MODELS_DIR=built-in:" in done.stderr
    listed = run("list", str(out))
    assert listed.stdout.splitlines()[1].split()[:3] == ["mine", "text", "32"]
    provenance = json.loads((out / "mine" / "provenance.json").read_text())
    assert provenance["fingerprint"] in listed.stdout
    assert set(provenance["sha256"]) == {"model.json", "text.onnx", "tokenizer.json"}
    assert "model.safetensors" in provenance["source_sha256"]
    assert provenance["exporters"]["torch"] == version("torch")
    assert provenance["golden"]["text"]["least"] >= 0.9999
    assert "| text | 1.0" in (out / "mine" / "README.md").read_text()


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    done = run("build", "nothing-there", "--target", "onnx", "--out", str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("medley: nothing-there is neither a built-in model, nor a folder, nor a hub id")
    assert len(done.stderr.splitlines()) == 1


def test_a_built_in_model_is_copied_with_the_one_it_continues(tmp_path: Path) -> None:
    folders = build(["medley-mini", "minilm"], BuildOptions(tmp_path), QUIET)
    assert [folder.name for folder in folders] == ["minilm", "medley-mini", "minilm"]
    with pytest.raises(ExportError, match="copied unchanged"):
        build(["minilm"], BuildOptions(tmp_path / "other", precision="fp16"), QUIET)


def test_the_embedder_imports_nothing_that_builds_models() -> None:
    code = (
        "import sys, services.embedder.__main__, services.embedder.wiring, services.embedder.adapters.onnx.encoder\n"
        "print([name for name in ('torch', 'transformers', 'onnx', 'huggingface_hub') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['huggingface_hub']")  # the package tokenizers may bring its own in
