"""The floors: the same work done with the raw libraries, without Medley.

They follow the libraries' documentation and import no service, so that a ratio shows what Medley adds.
"""

import io
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import lance
import numpy as np
import onnxruntime as ort
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from benchmarks.fashion import Product, chunks

Matrix = NDArray[np.float32]
BATCH = 32


class RawEncoder:
    """medley-mini and minilm by ONNX Runtime."""

    def __init__(self, models: Path, *, threads: int) -> None:
        mini = json.loads((models / "medley-mini/model.json").read_text())
        self._size, self._mean, self._std = (
            np.array(mini["image"][key], np.float32) for key in ("size", "mean", "std")
        )
        self._image = _session(models / "medley-mini/image.onnx", threads)
        self._head = _session(models / "medley-mini/text.onnx", 1)
        self._text = _session(models / "minilm/text.onnx", 1)
        self._tokenizer = Tokenizer.from_file(str(models / "minilm/tokenizer.json"))

    def sentence(self, text: str) -> Matrix:
        """Return the minilm vector of `text`, shape (384,)."""
        tokens = self._tokenizer.encode(text)
        feed = {"input_ids": np.array([tokens.ids]), "attention_mask": np.array([tokens.attention_mask])}
        vector: Matrix = self._text.run(None, feed)[0][0]
        return vector

    def caption(self, text: str) -> Matrix:
        """Return the medley-mini vector of `text`, shape (256,)."""
        vector: Matrix = self._head.run(None, {"text_vector": self.sentence(text)[None]})[0][0]
        return vector

    def pictures(self, files: Sequence[bytes]) -> Matrix:
        """Return the medley-mini vectors of `files`, encoded pictures, shape (len(files), 256)."""
        pixels = np.stack([self._pixels(file) for file in files])
        vectors: Matrix = self._image.run(None, {"pixels": pixels})[0]
        return vectors

    def _pixels(self, file: bytes) -> Matrix:
        side = int(self._size)
        picture = Image.open(io.BytesIO(file)).convert("RGB")
        scale = side / max(picture.size)
        small = picture.resize([max(1, round(edge * scale)) for edge in picture.size], Image.Resampling.BICUBIC)
        canvas = Image.new("RGB", (side, side), "white")
        canvas.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
        scaled = (np.asarray(canvas, np.float32) / 255 - self._mean) / self._std
        return np.ascontiguousarray(scaled.transpose(2, 0, 1))


class RawStack:
    """A FAISS flat index and a Lance table: the minimum work of a query."""

    def __init__(self, folder: Path, encoder: RawEncoder) -> None:
        self._folder = str(folder / "floor.lance")
        self._encoder = encoder
        self._ids: list[str] = []

    def fill(self, products: Sequence[Product]) -> None:
        """Embed and store `products`."""
        faiss.omp_set_num_threads(1)
        pictures = np.concatenate(
            [self._encoder.pictures([p.picture for p in chunk]) for chunk in chunks(products, BATCH)]
        )
        names = np.stack([self._encoder.sentence(product.name) for product in products])
        self._index = faiss.IndexFlatIP(pictures.shape[1])
        self._index.add(pictures)
        self._ids = [product.id for product in products]
        lance.write_dataset(_rows(products, pictures, names), self._folder, mode="overwrite")
        self._table = lance.dataset(self._folder)
        self._table.create_scalar_index("id", "BTREE")

    def query(self, text: str, top_k: int = 10) -> pa.Table:
        """Return the rows of the pictures nearest to `text`: embed, search, fetch."""
        _, found = self._index.search(self._encoder.caption(text)[None], top_k)
        return self.fetch([self._ids[row] for row in found[0]])

    def fetch(self, ids: Sequence[str]) -> pa.Table:
        """Return the rows of `ids` without their vectors."""
        quoted = ", ".join(f"'{item_id}'" for item_id in ids)
        return self._table.to_table(columns=["id", "text", "metadata"], filter=f"id in ({quoted})")


def encode_pictures(encoder: RawEncoder, products: Iterable[Product], threads: int) -> None:
    """Embed every picture, `threads` batches at a time: the raw encoder at its best."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda chunk: encoder.pictures([product.picture for product in chunk]), chunks(products, BATCH)))


def encode_both(encoder: RawEncoder, products: Iterable[Product], threads: int) -> None:
    """Embed every picture and every name, `threads` batches at a time."""

    def encode(chunk: Sequence[Product]) -> None:
        encoder.pictures([product.picture for product in chunk])
        for product in chunk:
            encoder.sentence(product.name)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(encode, chunks(products, BATCH)))


def _session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _rows(products: Sequence[Product], pictures: Matrix, names: Matrix) -> pa.Table:
    return pa.table(
        {
            "id": [product.id for product in products],
            "text": [product.name for product in products],
            "metadata": [json.dumps(product.metadata) for product in products],
            "clip": pa.FixedSizeListArray.from_arrays(pictures.ravel(), pictures.shape[1]),
            "name": pa.FixedSizeListArray.from_arrays(names.ravel(), names.shape[1]),
        }
    )
