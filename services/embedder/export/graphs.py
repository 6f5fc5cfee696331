"""Export of towers to ONNX graphs, in three precisions."""

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor

from services.embedder.export.errors import ExportError, first_line
from services.embedder.export.parts import Tower
from services.embedder.export.precision import Precision

OPSET = 17
QUANTIZED_OPERATORS = ("MatMul", "Gather")
"""The operators with nearly all weights. ONNX Runtime has no int8 convolution for the CPU with int8 weights."""

MAX_BYTES = 2**31 - 2**24
"""Maximum size of an ONNX file, a protobuf message, with a margin for its operators."""

MIN_CONVERTED_SIZE = 1024
"""Weights with fewer elements than this are not converted; it would save nothing."""


def write(tower: Tower, example: Sequence[Tensor], names: Sequence[str], path: Path, precision: Precision) -> None:
    """Write `tower` as a graph from the inputs `names` to `vector`, traced with `example`.

    The number of rows of all inputs is dynamic, and the number of columns of token inputs.

    Raises:
        ExportError: it cannot be exported to a graph, or not into one file.
    """
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / "fp32.onnx"
        _trace(tower, example, names, plain)
        match precision:
            case "fp32":
                path.write_bytes(plain.read_bytes())
            case "fp16":
                convert_to_fp16(plain, path)
            case "int8":
                quantize_int8(plain, path)


def is_dynamically_quantized(path: Path) -> bool:
    """Return whether the graph scales activations at run time, over the whole batch."""
    return any(node.op_type == "DynamicQuantizeLinear" for node in onnx.load(str(path)).graph.node)


def convert_to_fp16(source: Path, target: Path) -> None:
    """Write the graph `source` with its weights in float16 as `target`; it computes in float32.

    Half the size on disk, nearly the same vectors, and the same speed: CPUs have no faster float16.
    """
    model = onnx.load(str(source))
    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or values.size < MIN_CONVERTED_SIZE:
            continue
        name = weight.name
        with np.errstate(over="ignore"):  # an overflow is noticed in the golden vectors
            weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def quantize_int8(source: Path, target: Path) -> None:
    """Write the graph `source` with int8 weights, one scale per channel; activations are scaled dynamically."""
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_dynamic(
            str(prepared),
            str(target),
            op_types_to_quantize=list(QUANTIZED_OPERATORS),
            weight_type=QuantType.QInt8,
            per_channel=True,
        )


def _trace(tower: Tower, example: Sequence[Tensor], names: Sequence[str], path: Path) -> None:
    size = sum(weight.numel() * weight.element_size() for weight in tower.parameters())
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # about constant lengths: golden inputs of other lengths reveal them
            torch.onnx.export(
                tower,
                tuple(example),
                str(path),
                input_names=list(names),
                output_names=["vector"],
                dynamic_axes=_axes(names),
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:  # torch raises many kinds of errors
        raise ExportError(
            f"cannot be exported to an ONNX graph ({size} bytes of weights): {first_line(error)}"
        ) from error
    if path.stat().st_size > MAX_BYTES or len(list(path.parent.iterdir())) > 1:
        raise ExportError("is too large for one ONNX file: at most 2 GB of float32 weights per tower")


def _axes(names: Sequence[str]) -> Mapping[str, Mapping[int, str]]:
    tokens = {"input_ids", "attention_mask"}
    axes = {name: {0: "batch", 1: "tokens"} if name in tokens else {0: "batch"} for name in names}
    return {**axes, "vector": {0: "batch"}}
