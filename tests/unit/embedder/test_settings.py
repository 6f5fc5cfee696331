"""Where models are looked for."""

import os
from pathlib import Path

import pytest

from services.embedder.settings import BUILT_IN_MODELS, EmbedderSettings


def test_several_folders_and_the_built_in_one_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDER_MODELS_DIR", os.pathsep.join(["built-in", "/srv/models"]))
    assert EmbedderSettings().models_dir == (BUILT_IN_MODELS, Path("/srv/models"))


def test_built_in_models_alone_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMBEDDER_MODELS_DIR", raising=False)
    assert EmbedderSettings().models_dir == (BUILT_IN_MODELS,)


@pytest.mark.parametrize("given", ["", f"built-in{os.pathsep}"])
def test_an_empty_name_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="empty folder name"):
        EmbedderSettings(models_dir=given)
