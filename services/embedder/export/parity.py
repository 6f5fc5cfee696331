"""A built model held against the original: the embedder's own code, and the exported graphs, beside torch's vectors."""

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
"""The least cosine, on any golden input, of an exported vector to the original's."""

MIN_PIXEL_COSINE = 0.999
"""The least cosine, on any golden picture, of a vector of our pixels to one of the original's pixels."""

LIMITS = ImageLimits(max_bytes=2**26, max_pixels=2**26)

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Parity:
    """How close vectors are to the original's, over the golden inputs; `worst` is the input with the least cosine."""

    least: float
    mean: float
    inputs: int
    worst: str


def check_parity(model: Model, parts: Parts, sound: Path | None, least: float) -> dict[str, Parity]:
    """Return how close the vectors of `model`, as read from its folder, are to those of `parts`.

    Raises:
        AccuracyError: some are further off than `least`, or than `MIN_PIXEL_COSINE` for the pixels alone.
        ExportError: the tokens are not the original's.
    """
    found: dict[str, Parity] = {}
    if parts.text is not None:
        found["text"] = _texts(model, parts.text)
    if parts.image is not None:
        found["image"] = _pictures(model, parts.image)
    if parts.audio is not None and sound is not None:
        found["audio"] = _sounds(sound, parts.audio)
    for name, parity in found.items():
        _require_parity(
            name, parity, least, "Try a higher --precision; or say a lower --min-cosine if you know it will do"
        )
    if parts.image is not None:
        found["pixels"] = _pixels(parts.image)
        _require_parity(
            "pixels", found["pixels"], MIN_PIXEL_COSINE, "Its image processor does something that ours does not"
        )
    return found


def _require_parity(name: str, parity: Parity, least: float, advice: str) -> None:
    if not parity.least >= least:  # so that not a number is refused as well
        raise AccuracyError(
            f"{name}: too far from the original: cosine {parity.least:.6f} on the golden input {parity.worst!r}, "
            f"wanted {least} or more. {advice}."
        )


def _parity(names: Sequence[str], expected: Matrix, actual: Matrix) -> Parity:
    cosines = (expected.astype(np.float64) * actual.astype(np.float64)).sum(axis=1)
    worst = int(np.nan_to_num(cosines, nan=-2).argmin())
    return Parity(float(cosines[worst]), float(cosines.mean()), len(names), names[worst])


def _texts(model: Model, part: TextPart) -> Parity:
    tower = model.text
    assert isinstance(tower, TextTower), "written so"
    texts = list(golden.TEXTS.values())
    _check_tokens(part)
    expected = np.concatenate([part.tower.vectors(*part.reference([text])) for text in texts])

    async def encoded() -> Matrix:
        async with BoundedExecutor("embedder", 1) as executor:
            return await OnnxRuntime(executor).text_encoder(tower).encode(texts)

    return _parity(list(golden.TEXTS), expected, asyncio.run(encoded()))


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
    assert tower is not None, "written so"
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
    """Compare our pixels with those of the original's processor by the vectors that the original makes of both.

    It is given each picture upright and without transparency: it knows of neither, and takes a file as it lies.
    """
    files = golden.pictures()
    ours = np.stack([decode_image(file, LIMITS, part.preprocessing).pixels for file in files.values()])
    theirs = np.stack([process_reference(part, file) for file in files.values()])
    return _parity(list(files), _original(part, theirs), _original(part, ours))


def process_reference(part: ImagePart, file: bytes) -> Pixels:
    """Return the pixels that the original's processor makes of a picture's file, upright and without transparency."""
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
    """Return the spectrograms of `sounds` by the original's extractor, shape (sounds, 1, frames, bands)."""
    rate = int(part.features["sampling_rate"] or 0)
    rows: Rows = part.extractor(list(sounds), sampling_rate=rate, return_tensors="np")["input_features"]
    return rows.astype(np.float32)
