"""ONNX Runtime in this process, on the CPU.

Each session uses one thread, and the executor runs several calls in parallel. That scales better than two threads
inside a call, and does not degrade when services share cores.
"""

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime import GraphOptimizationLevel

from services.common.concurrency.executors import BoundedExecutor
from services.common.vectors import Matrix
from services.embedder.adapters.model_files import verify_file
from services.embedder.adapters.onnx.tokenizer import TowerTokenizer
from services.embedder.core.catalog import ImageTower, ModelFile, TextProjection, TextTower
from services.embedder.core.encoder import TensorEncoder, TextEncoder
from services.embedder.core.errors import ModelFileError
from services.embedder.core.preprocessing import Pixels

TEXTS_PER_TASK = 8
"""Texts that a thread runs as one task: some 6 ms, so that other calls do not wait long."""

ROWS_PER_TASK = 64
"""Rows of a projection that a thread runs as one task."""

MAX_INLINE_ROWS = 2
"""Rows of a projection run on the event loop: 0.03 ms each, less than the hand-over to a thread takes."""


class OnnxRuntime:
    """A `Runtime` of ONNX Runtime sessions."""

    identity = "onnxruntime cpu"

    def __init__(self, executor: BoundedExecutor) -> None:
        self._executor = executor

    def text_encoder(self, tower: TextTower) -> TextEncoder:
        return OnnxTextEncoder(tower, self._executor)

    def projection_encoder(self, projection: TextProjection) -> TensorEncoder:
        return OnnxProjectionEncoder(projection, self._executor)

    def image_encoder(self, tower: ImageTower) -> TensorEncoder:
        return OnnxImageEncoder(tower, self._executor)


class OnnxTextEncoder:
    """A `TextEncoder` that runs each text in a batch of one, unpadded.

    With int8 weights, activations are scaled at run time over the whole tensor, so in a batch a text's vector would
    depend on the other texts. Batching would gain little: a batch of 32 takes as long as 26 texts one by one.
    """

    def __init__(self, tower: TextTower, executor: BoundedExecutor) -> None:
        self._tower = tower
        self._graph = _Graph(tower.graph, tower.dimensions, GraphOptimizationLevel.ORT_ENABLE_EXTENDED)
        self._executor = executor
        self._tokens = TowerTokenizer(tower)

    async def warm(self) -> None:
        await self._executor.run(self._vector, "warm")

    async def encode(self, texts: Sequence[str]) -> Matrix:
        return _stack(await self._executor.run_each(self._vector, texts, chunk=TEXTS_PER_TASK), self._tower.dimensions)

    def _vector(self, text: str) -> Matrix:
        vector: Matrix = self._graph.run(self._tokens.inputs(text))[0]
        return vector


class OnnxProjectionEncoder:
    """A `TensorEncoder` of text vectors that runs each row in a batch of one, so that results are bit-identical."""

    def __init__(self, projection: TextProjection, executor: BoundedExecutor) -> None:
        self._dimensions = projection.dimensions
        self._graph = _Graph(projection.graph, projection.dimensions, GraphOptimizationLevel.ORT_ENABLE_EXTENDED)
        self._executor = executor

    async def warm(self) -> None:
        await self._executor.run(self._graph.load)

    async def encode(self, rows: Pixels) -> Matrix:
        if len(rows) <= MAX_INLINE_ROWS and self._graph.loaded:
            return _stack([self._vector(row) for row in rows], self._dimensions)
        return _stack(await self._executor.run_each(self._vector, list(rows), chunk=ROWS_PER_TASK), self._dimensions)

    def _vector(self, row: Pixels) -> Matrix:
        vector: Matrix = self._graph.run_rows(row[None])[0]
        return vector


class OnnxImageEncoder:
    """A `TensorEncoder` of pixels that runs its rows in one batch, or one by one if the tower is batch-sensitive."""

    def __init__(self, tower: ImageTower, executor: BoundedExecutor) -> None:
        self._tower = tower
        # The highest level changes the layout of convolutions: a third faster, and 0.1 s longer to load.
        self._graph = _Graph(tower.graph, tower.dimensions, GraphOptimizationLevel.ORT_ENABLE_ALL)
        self._executor = executor

    async def warm(self) -> None:
        size = self._tower.preprocessing.size
        await self.encode(np.zeros((1, 3, size, size), np.float32))

    async def encode(self, rows: Pixels) -> Matrix:
        if not len(rows):
            return _stack([], self._tower.dimensions)
        if self._tower.batch_sensitive:
            return np.concatenate(
                await self._executor.run_each(self._graph.run_rows, [row[None] for row in rows], chunk=1)
            )
        return await self._executor.run(self._graph.run_rows, rows)


class _Graph:
    """A graph of a model, loaded lazily and once, by the first thread that uses it."""

    def __init__(self, file: ModelFile, dimensions: int, level: GraphOptimizationLevel) -> None:
        self._file = file
        self._dimensions = dimensions
        self._level = level
        self._session: onnxruntime.InferenceSession | None = None
        self._loading = threading.Lock()

    @property
    def loaded(self) -> bool:
        return self._session is not None

    def load(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            with self._loading:
                if self._session is None:
                    self._session = self._create_session()
        return self._session

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Matrix:
        vectors: Matrix = self.load().run(["vector"], inputs)[0]
        return vectors

    def run_rows(self, rows: Pixels) -> Matrix:
        """Run a graph that has one input, whatever its name."""
        return self.run({self.load().get_inputs()[0].name: rows})

    def _create_session(self) -> onnxruntime.InferenceSession:
        path = verify_file(self._file)
        try:
            session = onnxruntime.InferenceSession(str(path), _options(self._level), ["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common class
            raise ModelFileError(path, f"ONNX Runtime cannot load it: {error}") from error
        outputs = {output.name: output.shape for output in session.get_outputs()}
        if outputs.get("vector", [None])[-1] != self._dimensions:
            raise ModelFileError(
                path, f"expected an output 'vector' of {self._dimensions} dimensions, it has {outputs}"
            )
        return session


def _options(level: GraphOptimizationLevel) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = level
    options.log_severity_level = 3
    return options


def _stack(vectors: Sequence[Matrix], dimensions: int) -> Matrix:
    return np.stack(vectors) if vectors else np.zeros((0, dimensions), np.float32)
