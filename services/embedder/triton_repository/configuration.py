"""`config.pbtxt` of a served tower. Comments in the file explain its settings to the server's operator."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.embedder.adapters.triton.layout import (
    ATTENTION_MASK,
    ROWS,
    TEXT,
    VECTOR,
    Flavour,
    ServedTower,
)
from services.embedder.core.catalog import ImageTower, TextProjection, TextTower


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """Serving options of a tower."""

    flavour: Flavour
    instances: int
    max_batch: int
    max_queue: int
    graph_inputs: Sequence[str]
    """Names of the graph's inputs, in order."""
    batch_sensitive: bool
    """Whether a row's vector depends on its batch, so that each row runs separately."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    kind: str
    dims: tuple[int, ...]
    warm_dims: tuple[int, ...]


WARM_TOKENS = 16


def config_pbtxt(served: ServedTower, serving: ServingOptions, parameters: Mapping[str, str]) -> str:
    """Return the configuration of the Triton model that serves a tower."""
    batch = 0 if _runs_unbatched(serving) else serving.max_batch
    inputs = _inputs(served, serving)
    parts = [
        f'name: "{served.name}"\n{_backend(serving.flavour)}max_batch_size: {batch}',
        *(_tensor("input", tensor) for tensor in inputs),
        _tensor("output", _Tensor(VECTOR, "FP32", _row_dims(serving, (served.tower.dimensions,)), ())),
        _instances(serving),
        _batching(serving) if batch else "# No batching: in a batch, a row's vector would depend on the other rows.",
        _warm_up(inputs, batch),
        "# One version: other weights have another fingerprint, and belong to other collections.\n"
        "version_policy: { latest { num_versions: 1 } }",
        *(_parameter(key, value) for key, value in parameters.items()),
    ]
    if serving.flavour == "tensorrt":
        parts.append(TENSORRT)
    return "\n".join(parts) + "\n"


def _runs_unbatched(serving: ServingOptions) -> bool:
    """Return whether Triton must not batch; the Python backend's model splits batches by itself."""
    return serving.batch_sensitive and serving.flavour != "python"


def _inputs(served: ServedTower, serving: ServingOptions) -> list[_Tensor]:
    match served.tower:
        case TextTower() if serving.flavour == "python":
            return [_Tensor(TEXT, "STRING", (1,), (1,))]
        case TextTower(inputs=inputs):
            dims = _row_dims(serving, (-1,))
            warm = _row_dims(serving, (WARM_TOKENS,))
            return [_Tensor(name, "INT64", dims, warm) for name in inputs]
        case TextProjection():
            shape: tuple[int, ...] = (served.input_dimensions,)
        case ImageTower(preprocessing=preprocessing):
            shape = (3, preprocessing.size, preprocessing.size)
    name = ROWS if serving.flavour == "python" else serving.graph_inputs[0]
    shape = shape if serving.flavour == "python" else _row_dims(serving, shape)
    return [_Tensor(name, "FP32", shape, shape)]


def _row_dims(serving: ServingOptions, dims: tuple[int, ...]) -> tuple[int, ...]:
    """Add the graph's batch dimension if Triton does not batch."""
    return (1, *dims) if _runs_unbatched(serving) else dims


def _backend(flavour: Flavour) -> str:
    return 'backend: "python"\n' if flavour == "python" else 'platform: "onnxruntime_onnx"\n'


def _tensor(role: str, tensor: _Tensor) -> str:
    return f"{role} [ {{ name: {json.dumps(tensor.name)} data_type: TYPE_{tensor.kind} dims: {list(tensor.dims)} }} ]"


def _instances(serving: ServingOptions) -> str:
    if serving.flavour == "python":
        return (
            "# Each instance is a process with one thread and its own weights; use as many as cores are free.\n"
            f"instance_group [ {{ count: {serving.instances} kind: KIND_CPU }} ]"
        )
    return (
        "# Several instances on a GPU overlap input copies and computation; without GPUs they run on the CPU.\n"
        f"instance_group [ {{ count: {serving.instances} kind: KIND_AUTO }} ]"
    )


def _batching(serving: ServingOptions) -> str:
    return f"""\
# No batching delay: requests that arrive while an instance is busy form its next batch (160 -> 660 requests/s
# from 1 to 32 callers). No preferred sizes: none was measurably better.
dynamic_batching {{
  max_queue_delay_microseconds: 0
  default_queue_policy {{
    # A full queue refuses requests; a request whose deadline passes in the queue is not executed.
    max_queue_size: {serving.max_queue}
    timeout_action: REJECT
    allow_timeout_override: true
  }}
}}"""


def _warm_up(inputs: Sequence[_Tensor], batch: int) -> str:
    sizes = [1, batch] if batch > 1 else [batch]
    samples = ",\n".join(_sample(inputs, size) for size in sizes)
    return f"# Warm-up, so that the first request takes no longer than later ones.\nmodel_warmup [\n{samples}\n]"


def _sample(inputs: Sequence[_Tensor], size: int) -> str:
    return f'  {{ name: "{size} rows" batch_size: {size} {" ".join(map(_warm_input, inputs))} }}'


def _warm_input(tensor: _Tensor) -> str:
    # Zeros are valid tokens, empty strings valid texts; a mask must be ones, as a mean over no token divides by zero.
    content = f"input_data_file: {json.dumps(_ones(tensor))}" if tensor.name == ATTENTION_MASK else "zero_data: true"
    kind = f"data_type: TYPE_{tensor.kind} dims: {list(tensor.warm_dims)}"
    return f'inputs {{ key: "{tensor.name}" value: {{ {kind} {content} }} }}'


def _ones(tensor: _Tensor) -> str:
    return f"{tensor.name}.{tensor.warm_dims[-1]}"


def _parameter(key: str, value: str) -> str:
    return f'parameters: {{ key: "{key}" value: {{ string_value: {json.dumps(value)} }} }}'


TENSORRT = """\
# TensorRT through ONNX Runtime: it builds engines for the GPU from the same file; CUDA runs unsupported operators.
# FP32, to reproduce the golden vectors; engines are cached, because building them takes minutes.
optimization { execution_accelerators { gpu_execution_accelerator: [ {
  name: "tensorrt"
  parameters { key: "precision_mode" value: "FP32" }
  parameters { key: "trt_engine_cache_enable" value: "true" }
  parameters { key: "trt_engine_cache_path" value: "/tmp/medley-tensorrt" }
} ] } }"""
