"""Parity of a built model with the original: vectors of the embedder and the exported graphs, and those of torch."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from services.common.concurrency.executors import BoundedExecutor
from services.common.vectors import Matrix
from services.embedder.adapters.onnx.encoder import OnnxRuntime
from services.embedder.core.catalog import ImageTower, Model, TextTower
from services.embedder.core.encoder import TensorEncoder
from services.embedder.core.preprocessing import Pixels, flatten
from services.embedder.export import golden
from services.embedder.export.errors import AccuracyError, ExportError
from services.embedder.export.parts import AudioPart, ImagePart, Parts, TextPart
from services.embedder.export.precision import Precision
from services.embedder.media.images import ImageLimits, decode_image

MIN_COSINE: Mapping[Precision, float] = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.98}
"""Minimum cosine, on any golden input, of an exported vector to the original's."""

MIN_PIXEL_COSINE = 0.999
"""Minimum cosine, on any golden picture, between the original's vectors of our pixels and of its own pixels."""

LIMITS = ImageLimits(max_bytes=2**26, max_pixels=2**26)

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Parity:
    """Cosines of vectors to the original's over the golden inputs; `worst` is the input with the least."""

    least: float
    mean: float
    inputs: int
    worst: str


def check_parity(model: Model, parts: Parts, audio: Path | None, min_cosine: float) -> dict[str, Parity]:
    """Compare the vectors of `model`, as read from its folder, with those of `parts`.

    Raises:
        AccuracyError: a cosine is below `min_cosine`, or below `MIN_PIXEL_COSINE` for the pixels alone.
        ExportError: the tokens differ from the original's.
    """
    found: dict[str, Parity] = {}
    if parts.text is not None:
        found["text"] = _texts(model, parts.text)
    if parts.image is not None:
        found["image"] = _pictures(model, parts.image)
    if parts.audio is not None and audio is not None:
        found["audio"] = _sounds(audio, parts.audio)
    for name, parity in found.items():
        _require_parity(
            name, parity, min_cosine, "Try a higher --precision; or a lower --min-cosine if that is acceptable"
        )
    if parts.image is not None:
        found["pixels"] = _pixels(parts.image)
        _require_parity(
            "pixels", found["pixels"], MIN_PIXEL_COSINE, "Its image processor does something that Medley's does not"
        )
    return found


def _require_parity(name: str, parity: Parity, min_cosine: float, advice: str) -> None:
    if not parity.least >= min_cosine:  # also refuses NaN
        raise AccuracyError(
            f"{name}: too far from the original: cosine {parity.least:.6f} on the golden input {parity.worst!r}, "
            f"expected at least {min_cosine}. {advice}."
        )


def _parity(names: Sequence[str], expected: Matrix, actual: Matrix) -> Parity:
    cosines = (expected.astype(np.float64) * actual.astype(np.float64)).sum(axis=1)
    worst = int(np.nan_to_num(cosines, nan=-2).argmin())
    return Parity(float(cosines[worst]), float(cosines.mean()), len(names), names[worst])


def _texts(model: Model, part: TextPart) -> Parity:
    tower = model.text
    assert isinstance(tower, TextTower), "write_model writes it"
    texts = list(golden.TEXTS.values())
    _check_tokens(part)
    expected = np.concatenate([part.tower.vectors(*part.reference([text])) for text in texts])

    async def encode() -> Matrix:
        async with BoundedExecutor("embedder", 1) as executor:
            return await OnnxRuntime(executor).text_encoder(tower).encode(texts)

    return _parity(list(golden.TEXTS), expected, asyncio.run(encode()))


def _check_tokens(part: TextPart) -> None:
    """Compare the tokens of the exported tokenizer with those of the original."""
    tokenizer = type(part.tokenizer).from_str(part.tokenizer.to_str())
    tokenizer.enable_truncation(part.max_tokens)
    for name, text in golden.TEXTS.items():
        ours, theirs = tokenizer.encode(text).ids, part.reference([text])[0][0].tolist()
        if theirs[: len(ours)] != ours or len(set(theirs[len(ours) :])) > 1:
            raise ExportError(
                f"the exported tokenizer differs on the golden text {name!r}: {ours[:12]} not {theirs[:12]}"
            )


def _pictures(model: Model, part: ImagePart) -> Parity:
    tower = model.image
    assert tower is not None, "write_model writes it"
    files = golden.pictures()
    rows = _our_pixels(files, tower)
    expected = _original(part, rows)
    return _parity(list(files), expected, asyncio.run(_encode(tower, rows)))


async def _encode(tower: ImageTower, rows: Pixels) -> Matrix:
    async with BoundedExecutor("embedder", 1) as executor:
        encoder: TensorEncoder = OnnxRuntime(executor).image_encoder(tower)
        return await encoder.encode(rows)


def _our_pixels(files: Mapping[str, bytes], tower: ImageTower) -> Pixels:
    return np.stack([decode_image(file, LIMITS, tower.preprocessing).pixels for file in files.values()])


def _original(part: ImagePart, rows: Pixels) -> Matrix:
    vectors: Matrix = np.concatenate([part.tower.vectors(torch.from_numpy(row[None])) for row in rows])
    return vectors


def _pixels(part: ImagePart) -> Parity:
    """Compare our pixels with those of the original's processor by the original's vectors of both.

    The processor gets each picture upright and without transparency, because it handles neither.
    """
    files = golden.pictures()
    ours = np.stack([decode_image(file, LIMITS, part.preprocessing).pixels for file in files.values()])
    theirs = np.stack([process_reference(part, file) for file in files.values()])
    return _parity(list(files), _original(part, theirs), _original(part, ours))


def process_reference(part: ImagePart, file: bytes) -> Pixels:
    """Return the pixels that the original's processor computes from a file, made upright and opaque."""
    shown = flatten(ImageOps.exif_transpose(Image.open(BytesIO(file))), part.preprocessing.background)
    pixels: Pixels = np.asarray(part.processor(images=[shown], return_tensors="np")["pixel_values"][0], np.float32)
    return pixels


def _sounds(path: Path, part: AudioPart) -> Parity:
    rate = int(part.features["sampling_rate"] or 0)
    sounds = golden.sounds(rate)
    rows = extract_features(part, list(sounds.values()))
    expected = np.concatenate([part.tower.vectors(torch.from_numpy(row[None])) for row in rows])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    actual = np.concatenate([session.run(["vector"], {"features": row[None]})[0] for row in rows])
    return _parity(list(sounds), expected, actual)


def extract_features(part: AudioPart, sounds: Sequence[golden.Sound]) -> Rows:
    """Return the spectrograms of `sounds` from the original's extractor, shape (sounds, 1, frames, bands)."""
    rate = int(part.features["sampling_rate"] or 0)
    rows: Rows = part.extractor(list(sounds), sampling_rate=rate, return_tensors="np")["input_features"]
    return rows.astype(np.float32)
