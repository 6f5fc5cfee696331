"""The conventions shared by repository writer and client: names of models, tensors and parameters."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from services.embedder.core.catalog import ImageTower, Model, TextProjection, TextTower

Flavour = Literal["python", "onnxruntime", "tensorrt"]
"""The backend that runs a graph in Triton: ONNX Runtime inside the Python backend, or the ONNX Runtime backend, without
or with the TensorRT accelerator."""

Tower = TextTower | TextProjection | ImageTower

IDENTITY = "onnxruntime cpu"
"""The runtime identity of every flavour, part of fingerprints; the same as that of the ONNX runtime.

A fingerprint identifies the arithmetic, not the host. That a server computes the same vectors is verified: each model
carries golden vectors computed by the ONNX runtime, and a client uses no server that does not reproduce them.
"""

TEXT, INPUT_IDS, ATTENTION_MASK, ROWS = "text", "input_ids", "attention_mask", "rows"
VECTOR = "vector"

FINGERPRINT, GOLDEN, TOWER = "fingerprint", "golden", "tower"


@dataclass(frozen=True, slots=True)
class ServedTower:
    """A tower of a catalog's model, and the name of the Triton model that runs it."""

    name: str
    model: str
    tower: Tower
    input_dimensions: int = 0
    """Length of a text projection's input rows; 0 for other towers."""


def served_towers(models: Iterable[Model]) -> list[ServedTower]:
    """Return a Triton model for each tower of `models`: `<model>.text` and `<model>.image`."""
    by_name = {model.name: model for model in models}
    served = []
    for model in by_name.values():
        if model.text is not None:
            rows = by_name[model.text.base].dimensions if isinstance(model.text, TextProjection) else 0
            served.append(ServedTower(f"{model.name}.text", model.name, model.text, rows))
        if model.image is not None:
            served.append(ServedTower(f"{model.name}.image", model.name, model.image))
    return served
