"""A table of the models in folders."""

from collections.abc import Sequence
from pathlib import Path

from services.embedder.adapters.model_folders import read_models
from services.embedder.adapters.onnx.encoder import OnnxRuntime
from services.embedder.core.catalog import Model, ModelCatalog
from services.embedder.export.console import folder_size, megabytes
from services.embedder.settings import EmbedderSettings

HEADER = ("name", "inputs", "dimensions", "size", "fingerprint", "summary")


def format_table(folders: Sequence[Path]) -> str:
    """Return a table of the models in `folders`; by default those of EMBEDDER_MODELS_DIR.

    Raises:
        ModelFileError: a folder has no models, or one of them is invalid.
    """
    catalog = ModelCatalog(read_models(*(folders or EmbedderSettings().models_dir)), OnnxRuntime.identity)
    rows = [HEADER, *(_row(model, catalog.fingerprint(model.name)) for model in catalog)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(model: Model, fingerprint: str) -> tuple[str, ...]:
    tower = model.text or model.image
    assert tower is not None, "a model has a tower"
    inputs = "+".join(content.value for content in model.inputs)
    size = megabytes(folder_size(tower.graph.path.parent))
    return (model.name, inputs, str(model.dimensions), size, fingerprint, model.summary)
