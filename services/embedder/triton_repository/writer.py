"""Writing a Triton model repository from folders of models; needs no server."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from services.common.concurrency.executors import BoundedExecutor
from services.common.vectors import Matrix
from services.embedder.adapters.model_files import verify_file
from services.embedder.adapters.model_folders import read_models
from services.embedder.adapters.onnx.encoder import OnnxRuntime
from services.embedder.adapters.triton.golden import EXACT_COSINE, QUANTIZED_COSINE, TEXTS, Golden, golden_rows
from services.embedder.adapters.triton.layout import (
    ATTENTION_MASK,
    FINGERPRINT,
    GOLDEN,
    IDENTITY,
    TOWER,
    Flavour,
    ServedTower,
    served_towers,
)
from services.embedder.core.catalog import ImageTower, ModelCatalog, TextProjection, TextTower
from services.embedder.triton_repository.configuration import WARM_TOKENS, ServingOptions, config_pbtxt

PYTHON_MODEL = Path(__file__).with_name("python_model.py")
VERSION = "1"

QUANTIZE_OPERATOR = b"DynamicQuantizeLinear"
"""The operator that scales activations at run time; a graph's file contains the names of its operators."""


def write_repository(
    models_dir: Path | Sequence[Path],
    out: Path,
    *,
    flavour: Flavour = "python",
    instances: int = 1,
    max_batch: int = 32,
    max_queue: int = 256,
) -> list[str]:
    """Write a Triton model for each tower of the models in `models_dir` into the repository `out`; return their names.

    Golden vectors are computed by ONNX Runtime in this process. A Triton model of the same name is replaced atomically;
    other files in `out` are kept. Do not call it from a running event loop.

    Raises:
        ModelFileError: a folder has no models, or one of them is invalid.
        OSError: `out` cannot be written.
    """
    models = read_models(*([models_dir] if isinstance(models_dir, Path) else models_dir))
    catalog = ModelCatalog(models, IDENTITY)
    out.mkdir(parents=True, exist_ok=True)
    towers = served_towers(models)
    for served in towers:
        serving = _serving(served, flavour, instances, max_batch, max_queue)
        parameters = _parameters(served, catalog.fingerprint(served.model))
        with tempfile.TemporaryDirectory(dir=out, prefix=".writing-") as scratch:
            written = Path(scratch) / served.name
            _write(written, served, flavour, config_pbtxt(served, serving, parameters))
            (written / FINGERPRINT).write_text(f"{parameters[FINGERPRINT]}\n", encoding="ascii")
            _move_into_place(written, out / served.name)
    return [served.name for served in towers]


def _serving(served: ServedTower, flavour: Flavour, instances: int, max_batch: int, max_queue: int) -> ServingOptions:
    inputs = () if flavour == "python" else _graph_inputs(served)
    return ServingOptions(flavour, instances, max_batch, max_queue, inputs, _is_batch_sensitive(served))


def _graph_inputs(served: ServedTower) -> list[str]:
    session = onnxruntime.InferenceSession(str(served.tower.graph.path), providers=["CPUExecutionProvider"])
    return [tensor.name for tensor in session.get_inputs()]


def _is_batch_sensitive(served: ServedTower) -> bool:
    match served.tower:
        case ImageTower(batch_sensitive=batch_sensitive):
            return batch_sensitive
        case _:
            return _is_dynamically_quantized(served)


def _is_dynamically_quantized(served: ServedTower) -> bool:
    return QUANTIZE_OPERATOR in verify_file(served.tower.graph).read_bytes()


def _parameters(served: ServedTower, fingerprint: str) -> dict[str, str]:
    min_cosine = QUANTIZED_COSINE if _is_dynamically_quantized(served) else EXACT_COSINE
    golden = Golden(asyncio.run(_golden_vectors(served)), min_cosine)
    return {FINGERPRINT: fingerprint, GOLDEN: golden.to_text(), TOWER: json.dumps(_tower(served))}


def _tower(served: ServedTower) -> dict[str, object]:
    """Return the parameters of a tower for the model of the Python backend."""
    match served.tower:
        case TextTower(max_tokens=max_tokens, padding=padding, inputs=inputs):
            fill = [padding.length, padding.token_id] if padding else None
            return {"max_tokens": max_tokens, "padding": fill, "inputs": list(inputs)}
        case TextProjection():
            return {"batch_sensitive": True, "extended": True}
        case ImageTower(batch_sensitive=batch_sensitive):
            return {"batch_sensitive": batch_sensitive, "extended": False}


async def _golden_vectors(served: ServedTower) -> Matrix:
    async with BoundedExecutor("embedder", 1) as executor:
        runtime = OnnxRuntime(executor)
        match served.tower:
            case TextTower() as tower:
                return await runtime.text_encoder(tower).encode(TEXTS)
            case TextProjection() as projection:
                return await runtime.projection_encoder(projection).encode(golden_rows(served.input_dimensions))
            case ImageTower(preprocessing=preprocessing) as tower:
                return await runtime.image_encoder(tower).encode(golden_rows(3, preprocessing.size, preprocessing.size))


def _write(folder: Path, served: ServedTower, flavour: Flavour, config: str) -> None:
    version = folder / VERSION
    version.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    shutil.copyfile(served.tower.graph.path, version / "model.onnx")
    if flavour == "python":
        shutil.copyfile(PYTHON_MODEL, version / "model.py")
    match served.tower:
        case TextTower(tokenizer=tokenizer) if flavour == "python":
            shutil.copyfile(verify_file(tokenizer), version / "tokenizer.json")
        case TextTower():
            (folder / "warmup").mkdir()
            np.ones(WARM_TOKENS, np.int64).tofile(folder / "warmup" / f"{ATTENTION_MASK}.{WARM_TOKENS}")


def _move_into_place(written: Path, target: Path) -> None:
    if target.exists():
        target.rename(written.with_name("replaced"))
    written.rename(target)
