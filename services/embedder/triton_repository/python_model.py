"""A tower of a Medley model in Triton's Python backend, run by ONNX Runtime as the embedder runs it.

This file is copied into each model's version folder. It needs numpy (under 2), onnxruntime and tokenizers, and nothing
of Medley.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

LEVELS = onnxruntime.GraphOptimizationLevel


class TritonPythonModel:
    """The interface of the Python backend."""

    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        config = json.loads(args["model_config"])
        settings = json.loads(config["parameters"]["tower"]["string_value"])
        self._input = config["input"][0]["name"]
        self._tower = {"text": Text, "rows": Rows}[self._input](folder, settings)

    def execute(self, requests):
        tensors = [pb_utils.get_input_tensor_by_name(request, self._input).as_numpy() for request in requests]
        try:
            vectors = self._tower.vectors(np.concatenate(tensors))
        except Exception as error:
            # Not the default code, which means that the process is broken.
            failure = pb_utils.TritonError(f"{type(error).__name__}: {error}", pb_utils.TritonError.INVALID_ARG)
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        ends = np.cumsum([len(tensor) for tensor in tensors])[:-1]
        return [_response(part) for part in np.split(vectors, ends)]


class Text:
    """Texts, shape (n, 1), each tokenized and run in a batch of one, padded only if the tower has padding.

    If activations are quantised at run time, their scale is that of the whole tensor, so in a batch a text's vector
    would depend on the other texts.
    """

    def __init__(self, folder, settings):
        self._graph = _graph(folder, LEVELS.ORT_ENABLE_EXTENDED)
        self._names = settings["inputs"]
        self._padding = settings["padding"]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(settings["max_tokens"])

    def vectors(self, texts):
        return np.concatenate([self._vector(text.decode()) for text in texts[:, 0]])

    def _vector(self, text):
        ids = self._tokenizer.encode(text).ids
        length, token = self._padding or (len(ids), 0)
        missing = length - len(ids)
        mask = [1] * len(ids) + [0] * missing
        tokens = {"input_ids": ids + [token] * missing, "attention_mask": mask}
        return self._graph.run(["vector"], {name: np.array([tokens[name]], np.int64) for name in self._names})[0]


class Rows:
    """Rows of numbers, run in one batch, or one by one if the tower is batch-sensitive."""

    def __init__(self, folder, settings):
        self._batch_sensitive = settings["batch_sensitive"]
        self._graph = _graph(folder, LEVELS.ORT_ENABLE_EXTENDED if settings["extended"] else LEVELS.ORT_ENABLE_ALL)
        self._name = self._graph.get_inputs()[0].name

    def vectors(self, rows):
        if not self._batch_sensitive:
            return self._run(rows)
        return np.concatenate([self._run(row[None]) for row in rows])

    def _run(self, rows):
        return self._graph.run(["vector"], {self._name: rows})[0]


def _response(vectors):
    return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("vector", np.ascontiguousarray(vectors))])


def _graph(folder, level):
    options = onnxruntime.SessionOptions()
    # One thread per instance: instances run in parallel, and two threads inside a call degrade when cores are shared.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = level
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), options, ["CPUExecutionProvider"])
