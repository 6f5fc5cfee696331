"""Run a finished model the way the embedder does, from its ONNX files and its `model.json`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.training.pixels import square
from models.training.text import TextEncoder, session

BATCH = 64


class PictureAndTextModel:
    """The model in `folder`, whose text head follows `text`."""

    def __init__(self, folder: Path, text: TextEncoder) -> None:
        described: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        picture = described["image"]
        self._tower, self._head = session(folder / picture["file"]), session(folder / described["text"]["file"])
        self.size: int = picture["size"]
        self._mean, self._std = (np.array(picture[key], np.float32) for key in ("mean", "std"))
        self._text = text

    def pixels(self, encoded: bytes) -> np.ndarray:
        """Return a picture file's normalised pixels, float32, shape (3, size, size)."""
        scaled = square(encoded, self.size).astype(np.float32) / 255
        return ((scaled - self._mean) / self._std).transpose(2, 0, 1)

    def pictures(self, files: Sequence[bytes]) -> np.ndarray:
        """Return the unit vector of each picture file, shape (files, dimensions)."""
        starts = range(0, len(files), BATCH)
        return np.concatenate([self.tower([self.pixels(file) for file in files[at : at + BATCH]]) for at in starts])

    def tower(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """Run the picture tower on one batch."""
        (vectors,) = self._tower.run(["vector"], {"pixels": np.stack(pixels)})
        return vectors

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return the unit vector of each text, shape (texts, dimensions)."""
        (vectors,) = self._head.run(["vector"], {"text_vector": self._text.run(texts)})
        return vectors
