"""Towers as ONNX graphs, in three precisions."""

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
"""Where nearly all weights are. ONNX Runtime has no int8 convolution for the CPU with int8 weights."""

MAX_BYTES = 2**31 - 2**24
"""What an ONNX file may have, being a protobuf message, with room for its operators."""

MIN_CONVERTED_SIZE = 1024
"""Weights of fewer numbers than this stay as they are: nothing would be saved."""


def write(tower: Tower, example: Sequence[Tensor], names: Sequence[str], path: Path, precision: Precision) -> None:
    """Write `tower` as a graph from inputs called `names`, unlike `example` in all their open lengths, to `vector`.

    Every input has any number of rows; one of the name of a token input any number of columns besides.

    Raises:
        ExportError: it cannot be written as a graph, or into one file.
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
    """Return whether the graph scales activations while running, over the whole batch."""
    return any(node.op_type == "DynamicQuantizeLinear" for node in onnx.load(str(path)).graph.node)


def convert_to_fp16(source: Path, target: Path) -> None:
    """Write the graph `source` with its weights in float16 as `target`; it reckons in float32 all the same.

    Half the bytes on disk, nearly the same vectors, and the same speed: processors have no faster float16.
    """
    model = onnx.load(str(source))
    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or values.size < MIN_CONVERTED_SIZE:
            continue
        name = weight.name
        with np.errstate(over="ignore"):  # a number beyond float16 shows in the golden vectors
            weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def quantize_int8(source: Path, target: Path) -> None:
    """Write the graph `source` with int8 weights, one scale a channel, as `target`; activations are scaled running."""
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
            warnings.simplefilter("ignore")  # of lengths that become constants: golden inputs of others show them
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
    except Exception as error:  # torch raises many kinds, one for each thing a graph cannot say
        raise ExportError(
            f"cannot be written as an ONNX graph ({size} bytes of weights): {first_line(error)}"
        ) from error
    if path.stat().st_size > MAX_BYTES or len(list(path.parent.iterdir())) > 1:
        raise ExportError("is too large for one ONNX file: 2 GB of weights in float32 a tower")


def _axes(names: Sequence[str]) -> Mapping[str, Mapping[int, str]]:
    tokens = {"input_ids", "attention_mask"}
    axes = {name: {0: "batch", 1: "tokens"} if name in tokens else {0: "batch"} for name in names}
    return {**axes, "vector": {0: "batch"}}
