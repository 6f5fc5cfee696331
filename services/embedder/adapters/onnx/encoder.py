"""ONNX Runtime in this process, on the CPU.

Each session has one thread of its own; what runs side by side are the calls, in the executor. That scales better than
two threads inside a call, and does not collapse where services share cores.
"""

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime import GraphOptimizationLevel

from services.common.concurrency.executors import BoundedExecutor
from services.common.vectors import Matrix
from services.embedder.adapters.model_files import verified
from services.embedder.adapters.onnx.tokenizer import Tokens
from services.embedder.core.catalog import ModelFile, PictureTower, TextHead, TextTower
from services.embedder.core.encoder import TensorEncoder, TextEncoder
from services.embedder.core.errors import ModelFileError
from services.embedder.core.preprocessing import Pixels

TEXTS_TOGETHER = 8
"""Texts in one go of a worker: some 6 ms, so that others' turn comes soon."""

ROWS_TOGETHER = 64
"""Rows of a head in one go of a worker."""

ROWS_IN_PLACE = 2
"""Rows of a head run without a worker: 0.03 ms each, less than handing them over takes."""


class OnnxRuntime:
    """A `Runtime` of ONNX Runtime sessions."""

    identity = "onnxruntime cpu"

    def __init__(self, executor: BoundedExecutor) -> None:
        self._executor = executor

    def text_encoder(self, tower: TextTower) -> TextEncoder:
        """Return an encoder of texts, one at a time."""
        return OnnxTextEncoder(tower, self._executor)

    def head_encoder(self, head: TextHead) -> TensorEncoder:
        """Return an encoder of text vectors, one at a time."""
        return OnnxHeadEncoder(head, self._executor)

    def picture_encoder(self, tower: PictureTower) -> TensorEncoder:
        """Return an encoder of pixels, in batches."""
        return OnnxPictureEncoder(tower, self._executor)


class OnnxTextEncoder:
    """A `TextEncoder` that runs each text alone and unpadded.

    Where weights are int8, activations are scaled while running, over the whole tensor: in a batch, a text's vector
    would depend on the texts beside it. Alone costs little: a batch of 32 takes as long as 26 texts one by one.
    """

    def __init__(self, tower: TextTower, executor: BoundedExecutor) -> None:
        self._tower = tower
        self._graph = _Graph(tower.graph, tower.dimensions, GraphOptimizationLevel.ORT_ENABLE_EXTENDED)
        self._executor = executor
        self._tokens = Tokens(tower)

    async def warm(self) -> None:
        """Load tokenizer and graph, and run them once."""
        await self._executor.run(self._vector, "warm")

    async def encode(self, texts: Sequence[str]) -> Matrix:
        """Return the vectors of `texts`, worked out by all threads."""
        return _stacked(
            await self._executor.run_each(self._vector, texts, chunk=TEXTS_TOGETHER), self._tower.dimensions
        )

    def _vector(self, text: str) -> Matrix:
        vector: Matrix = self._graph.run(self._tokens.inputs(text))[0]
        return vector


class OnnxHeadEncoder:
    """A `TensorEncoder` of text vectors that runs each row alone: its vector is the same to the last bit."""

    def __init__(self, head: TextHead, executor: BoundedExecutor) -> None:
        self._dimensions = head.dimensions
        self._graph = _Graph(head.graph, head.dimensions, GraphOptimizationLevel.ORT_ENABLE_EXTENDED)
        self._executor = executor

    async def warm(self) -> None:
        """Load the graph."""
        await self._executor.run(self._graph.load)

    async def encode(self, rows: Pixels) -> Matrix:
        """Return the vectors of `rows`."""
        if len(rows) <= ROWS_IN_PLACE and self._graph.loaded:
            return _stacked([self._vector(row) for row in rows], self._dimensions)
        return _stacked(await self._executor.run_each(self._vector, list(rows), chunk=ROWS_TOGETHER), self._dimensions)

    def _vector(self, row: Pixels) -> Matrix:
        vector: Matrix = self._graph.run_rows(row[None])[0]
        return vector


class OnnxPictureEncoder:
    """A `TensorEncoder` of pixels that runs all its rows in one batch, or each alone where the tower wants that."""

    def __init__(self, tower: PictureTower, executor: BoundedExecutor) -> None:
        self._tower = tower
        # The highest level lays convolutions out anew: a third faster, and 0.1 s longer to load.
        self._graph = _Graph(tower.graph, tower.dimensions, GraphOptimizationLevel.ORT_ENABLE_ALL)
        self._executor = executor

    async def warm(self) -> None:
        """Load the graph, and run it once."""
        size = self._tower.preprocessing.size
        await self.encode(np.zeros((1, 3, size, size), np.float32))

    async def encode(self, rows: Pixels) -> Matrix:
        """Return the vectors of `rows`, by one worker."""
        if not len(rows):
            return _stacked([], self._tower.dimensions)
        if self._tower.alone:
            return np.concatenate(
                await self._executor.run_each(self._graph.run_rows, [row[None] for row in rows], chunk=1)
            )
        return await self._executor.run(self._graph.run_rows, rows)


class _Graph:
    """A graph of a model, loaded when first used, by whichever thread is first."""

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
                    self._session = self._made()
        return self._session

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Matrix:
        vectors: Matrix = self.load().run(["vector"], inputs)[0]
        return vectors

    def run_rows(self, rows: Pixels) -> Matrix:
        """Run a graph of a single input, whatever its name."""
        return self.run({self.load().get_inputs()[0].name: rows})

    def _made(self) -> onnxruntime.InferenceSession:
        path = verified(self._file)
        try:
            session = onnxruntime.InferenceSession(str(path), _options(self._level), ["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common class
            raise ModelFileError(path, f"ONNX Runtime does not take it: {error}") from error
        outputs = {output.name: output.shape for output in session.get_outputs()}
        if outputs.get("vector", [None])[-1] != self._dimensions:
            raise ModelFileError(path, f"wanted an output 'vector' of {self._dimensions} dimensions, it has {outputs}")
        return session


def _options(level: GraphOptimizationLevel) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = level
    options.log_severity_level = 3
    return options


def _stacked(vectors: Sequence[Matrix], dimensions: int) -> Matrix:
    return np.stack(vectors) if vectors else np.zeros((0, dimensions), np.float32)
