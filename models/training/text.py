"""Run the built-in text model the way the embedder does: one unpadded text at a time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer


def session(path: Path) -> ort.InferenceSession:
    """Open the graph at `path` on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class TextEncoder:
    """The text model in `folder`; `graph` replaces its ONNX file for comparisons."""

    def __init__(self, folder: Path, graph: Path | None = None) -> None:
        self._session = session(graph or folder / "text.onnx")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def run(self, texts: Sequence[str]) -> np.ndarray:
        """Return the unit vector of each text, shape (texts, dimensions), each computed on its own."""
        return np.concatenate([self.run_padded([text]) for text in texts])

    def run_padded(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of `texts` computed as one padded batch; only for measuring what that costs."""
        rows = [self._tokenizer.encode(text).ids for text in texts]
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        (vectors,) = self._session.run(["vector"], {"input_ids": ids, "attention_mask": mask})
        return vectors
