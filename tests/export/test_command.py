"""`medley models`, which passes everything on."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from services.embedder.settings import BUILT_IN_MODELS

CODE = (
    "import sys; from medley.cli.commands.models import models; "
    "sys.exit(models.main(sys.argv[1:], prog_name='medley models', standalone_mode=False))"
)


def models(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", CODE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_the_built_in_models_are_listed() -> None:
    done = models("list", str(BUILT_IN_MODELS))
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["name", "medley-mini", "minilm"]


def test_help_is_that_of_the_program_itself() -> None:
    assert "--min-cosine" in models("build", "--help").stdout


@pytest.mark.parametrize(("arguments", "code"), [(["build"], 2), (["list", "/nowhere"], 1)])
def test_its_exit_code_is_passed_on(arguments: list[str], code: int) -> None:
    assert models(*arguments).returncode == code


def test_a_built_in_model_is_taken_without_what_builds_others(tmp_path: Path) -> None:
    done = models("build", "minilm", "--target", "onnx", "--out", str(tmp_path / "out"))
    assert (done.returncode, done.stdout.split()) == (0, [str(tmp_path / "out" / "minilm")])
    assert "copied to" in done.stderr


@pytest.mark.skipif(find_spec("torch") is not None, reason="the extra export is installed")
def test_a_missing_extra_is_named_before_anything_is_downloaded(tmp_path: Path) -> None:
    done = models("build", "openai/clip-vit-base-patch32", "--target", "onnx", "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "pip install 'medley-server[export]'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_triton_gets_a_repository_beside_the_models(tmp_path: Path) -> None:
    done = models("build", "minilm", "--target", "triton", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models" / "minilm" / "model.json").is_file()
    assert (tmp_path / "repository" / "minilm.text" / "config.pbtxt").is_file()
