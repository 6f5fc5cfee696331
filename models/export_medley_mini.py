"""Write trained weights as `models/medley-mini`: two ONNX graphs and `model.json`.

    python -m models.export_medley_mini WORK/average-64.pt [--output models/medley-mini]

Weights are stored as float16 and widened when a session loads them: half the file, float32 arithmetic.
Needs the extra `training`: torch, onnx.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from models.train_medley_mini import DIMENSIONS, MEAN, STD, WIDTHS
from models.training.manifest import sha256, write_manifest
from models.training.network import Towers

OPSET = 17
SMALL = 512
"""Tensors with fewer numbers than this stay float32."""


def export(module: nn.Module, example: torch.Tensor, names: tuple[str, str], path: Path) -> None:
    """Write `module` as a graph with an open batch; `names` are its input and its output."""
    torch.onnx.export(
        module,
        (example,),
        str(path),
        input_names=[names[0]],
        output_names=[names[1]],
        dynamic_axes={name: {0: "batch"} for name in names},
        opset_version=OPSET,
        dynamo=False,
    )
    model = onnx.load(path)
    halve(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def halve(graph: onnx.GraphProto) -> None:
    """Store the large float32 tensors of `graph` as float16, each behind a cast back that loading folds away."""
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < SMALL:
            continue
        used, stored = tensor.name, f"{tensor.name}.float16"
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [used], to=TensorProto.FLOAT))
    for index, cast in enumerate(casts):
        graph.node.insert(index, cast)


def manifest(folder: Path, size: int) -> dict[str, Any]:
    """Describe the model in `folder`, whose pictures are `size` pixels wide and high, for `model.json`."""
    image = {
        "file": "image.onnx",
        "sha256": sha256(folder / "image.onnx"),
        "size": size,
        "resize": "pad",
        "background": [255, 255, 255],
        "interpolation": "bicubic",
        "mean": MEAN,
        "std": STD,
    }
    return {
        "name": "medley-mini",
        "version": "1",
        "dimensions": DIMENSIONS,
        "metric": "cosine",
        "licence": "Apache-2.0",
        "summary": "Pictures and short English descriptions in one space: products, everyday objects, drawings.",
        "image": image,
        "text": {"file": "text.onnx", "sha256": sha256(folder / "text.onnx"), "base": "minilm"},
    }


def main() -> None:
    """Make the model's folder."""
    arguments = argparse.ArgumentParser(description="Export models/medley-mini.")
    arguments.add_argument("weights", type=Path)
    arguments.add_argument("--output", type=Path, default=Path("models/medley-mini"))
    options = arguments.parse_args()

    stored = torch.load(options.weights, weights_only=True)
    towers = Towers(WIDTHS, DIMENSIONS)
    towers.load_state_dict(stored["towers"])
    towers.eval()
    options.output.mkdir(parents=True, exist_ok=True)
    size = stored["size"]
    export(towers.image, torch.zeros(2, 3, size, size), ("pixels", "vector"), options.output / "image.onnx")
    export(towers.text, torch.zeros(2, 384), ("text_vector", "vector"), options.output / "text.onnx")
    write_manifest(options.output, manifest(options.output, size))


if __name__ == "__main__":
    main()
