"""What the writer of a repository and the client of a server agree upon: names of models, tensors and parameters."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from services.embedder.core.catalog import Model, PictureTower, TextHead, TextTower

Flavour = Literal["python", "onnxruntime", "tensorrt"]
"""What runs a graph in Triton: ONNX Runtime inside the Python backend, or the ONNX Runtime backend, plain or with the
TensorRT accelerator."""

Tower = TextTower | TextHead | PictureTower

IDENTITY = "onnxruntime cpu"
"""What every flavour says of itself in a fingerprint: the same as the runtime in process.

A fingerprint names the arithmetic, not the host. That a server computes as the process does is not taken on trust:
each model carries golden vectors made in process, and a client admits no server that misses them.
"""

TEXT, INPUT_IDS, ATTENTION_MASK, ROWS = "text", "input_ids", "attention_mask", "rows"
VECTOR = "vector"

FINGERPRINT, GOLDEN, TOWER = "fingerprint", "golden", "tower"


@dataclass(frozen=True, slots=True)
class ServedTower:
    """A tower of a catalogue's model, and the name of the Triton model that runs it."""

    name: str
    model: str
    tower: Tower
    input_dimensions: int = 0
    """Length of a text head's rows; 0 for other towers."""


def served_towers(models: Iterable[Model]) -> list[ServedTower]:
    """Return a Triton model for each tower of `models`: `<model>.text` and `<model>.image`."""
    by_name = {model.name: model for model in models}
    served = []
    for model in by_name.values():
        if model.text is not None:
            rows = by_name[model.text.after].dimensions if isinstance(model.text, TextHead) else 0
            served.append(ServedTower(f"{model.name}.text", model.name, model.text, rows))
        if model.image is not None:
            served.append(ServedTower(f"{model.name}.image", model.name, model.image))
    return served
