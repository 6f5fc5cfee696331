"""Repositories written for Triton."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

pytest.importorskip("tritonclient", reason="the extra `triton` is not installed")

from tritonclient.grpc import model_config_pb2

from services.embedder.adapters.model_folders import read_models
from services.embedder.adapters.onnx.encoder import OnnxRuntime
from services.embedder.adapters.triton.golden import EXACT_COSINE, QUANTIZED_COSINE, TEXTS, Golden, golden_rows
from services.embedder.core.catalog import ModelCatalog
from services.embedder.core.errors import ModelFileError
from services.embedder.settings import BUILT_IN_MODELS
from services.embedder.triton_repository import IDENTITY, Flavour, write_repository
from services.embedder.triton_repository.__main__ import main

NAMES = ["medley-mini.image", "medley-mini.text", "minilm.text"]
FLAVOURS: list[Flavour] = ["python", "onnxruntime", "tensorrt"]


@pytest.fixture(scope="module", params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def written(flavour: Flavour, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "repository"
    assert sorted(write_repository(BUILT_IN_MODELS, out, flavour=flavour, instances=3, max_batch=16)) == NAMES
    return out


@pytest.fixture(scope="module")
def configs(written: Path) -> dict[str, Any]:
    """Each `config.pbtxt`, read as Triton reads it."""
    return {
        name: text_format.Parse((written / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
        for name in NAMES
    }


def test_a_folder_for_each_tower_and_nothing_else(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == NAMES
    for name in NAMES:
        assert (written / name / "1" / "model.onnx").exists()


def test_names_are_those_of_the_folders(configs: dict[str, Any]) -> None:
    assert {name: config.name for name, config in configs.items()} == {name: name for name in NAMES}


def test_fingerprints_are_those_of_the_runtime_in_process(configs: dict[str, Any], written: Path) -> None:
    assert OnnxRuntime.identity == IDENTITY
    catalog = ModelCatalog(read_models(BUILT_IN_MODELS), OnnxRuntime.identity)
    for name, config in configs.items():
        fingerprint = catalog.fingerprint(name.rpartition(".")[0])
        assert config.parameters["fingerprint"].string_value == fingerprint
        assert (written / name / "fingerprint").read_text().strip() == fingerprint


def test_golden_vectors_are_unit_vectors_one_an_input(configs: dict[str, Any]) -> None:
    goldens = {name: Golden.from_text(config.parameters["golden"].string_value) for name, config in configs.items()}
    shapes = {name: golden.vectors.shape for name, golden in goldens.items()}
    assert shapes == dict(zip(NAMES, [(2, 256), (2, 256), (len(TEXTS), 384)], strict=True))
    for golden in goldens.values():
        assert np.allclose(np.linalg.norm(golden.vectors, axis=1), 1, atol=1e-5)
    assert goldens["minilm.text"].min_cosine == QUANTIZED_COSINE
    assert goldens["medley-mini.image"].min_cosine == EXACT_COSINE


def test_int8_texts_are_never_batched_by_triton(configs: dict[str, Any], flavour: Flavour) -> None:
    text = configs["minilm.text"]
    if flavour == "python":  # which takes batches, and runs each text alone
        assert text.max_batch_size == 16
        assert [(each.name, list(each.dims)) for each in text.input] == [("text", [1])]
    else:
        assert text.max_batch_size == 0
        assert not text.HasField("dynamic_batching")
        names = ["input_ids", "attention_mask"]
        assert [(each.name, list(each.dims)) for each in text.input] == [(name, [1, -1]) for name in names]


def test_pictures_are_batched_without_delay_behind_a_bounded_queue(configs: dict[str, Any]) -> None:
    config = configs["medley-mini.image"]
    assert config.max_batch_size == 16
    size = json.loads((BUILT_IN_MODELS / "medley-mini" / "model.json").read_text())["image"]["size"]
    assert list(config.input[0].dims) == [3, size, size]
    assert list(config.output[0].dims) == [256]
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 256
    assert config.dynamic_batching.default_queue_policy.allow_timeout_override


def test_copies_and_accelerators(configs: dict[str, Any], flavour: Flavour) -> None:
    for config in configs.values():
        assert sum(group.count for group in config.instance_group) == 3
        assert (config.backend or config.platform) == ("python" if flavour == "python" else "onnxruntime_onnx")
        accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
        assert [each.name for each in accelerators] == (["tensorrt"] if flavour == "tensorrt" else [])


def test_warm_up_files_are_there(configs: dict[str, Any], written: Path) -> None:
    for name, config in configs.items():
        assert config.model_warmup
        for sample in config.model_warmup:
            for tensor in sample.inputs.values():
                file = tensor.input_data_file
                assert not file or (written / name / "warmup" / file).stat().st_size == 8 * tensor.dims[-1]


def test_writing_again_replaces_and_leaves_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    write_repository(BUILT_IN_MODELS, tmp_path)
    (tmp_path / "minilm.text" / "1" / "stale").touch()
    write_repository(BUILT_IN_MODELS, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*NAMES, "mine"])
    assert not (tmp_path / "minilm.text" / "1" / "stale").exists()


def test_an_altered_graph_is_refused_and_nothing_is_left_behind(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "minilm"
    folder.mkdir(parents=True)
    for file in (BUILT_IN_MODELS / "minilm").glob("*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "text.onnx").write_bytes(b"something else")
    with pytest.raises(ModelFileError, match="sha256"):
        write_repository(tmp_path / "models", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_golden_vectors_survive_the_way_through_text() -> None:
    golden = Golden(golden_rows(5), 0.9)
    assert golden.vectors.dtype == np.float32
    again = Golden.from_text(golden.to_text())
    assert np.array_equal(again.vectors, golden.vectors)
    assert again.min_cosine == 0.9


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"float32_le": "AAA", "inputs": 1, "min_cosine": 1})])
def test_what_holds_no_golden_vectors_says_so(text: str) -> None:
    with pytest.raises(ValueError, match="no golden vectors"):
        Golden.from_text(text)


def test_golden_rows_differ_and_stay_within_two_of_nothing() -> None:
    rows = golden_rows(3, 4, 4)
    assert rows.shape == (2, 3, 4, 4)
    assert np.abs(rows).max() <= 1.01
    assert not np.array_equal(rows[0], rows[1])


def test_the_command_writes_and_names_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["triton_repository", str(tmp_path / "out"), "--models-dir", "built-in"])
    main()
    assert sorted(capsys.readouterr().out.split()) == NAMES
    monkeypatch.setattr("sys.argv", ["triton_repository", str(tmp_path / "out"), "--models-dir", str(tmp_path / "no")])
    with pytest.raises(SystemExit, match=r"no folder in it holds a model\.json"):
        main()
