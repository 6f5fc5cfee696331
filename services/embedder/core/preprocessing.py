"""Preprocessing of pictures to the pixels that a model takes; the only implementation.

Scaling alone changes a picture's vector (cosine 0.94 between two common methods), so the steps are fixed here and
versioned by `VERSION`, which is part of every fingerprint:

1. the first frame, upright: EXIF orientation applied;
2. 16-bit grey cut to its upper 8 bits; transparency composited on `background`; RGB;
3. made a square of `size` by one of
   - `pad`: scaled so that the longer side is `size`, the other max(1, round(side * size / longest)), half to even;
     centred on a square of `background`, at (size - width) // 2 and (size - height) // 2;
   - `crop`: scaled so that the shorter side is `size`, the other floor(side * size / shortest); of it the centre,
     starting at (side - size) // 2;
   - `squash`: scaled to `size` by `size`, ignoring its aspect ratio;
4. float32, / 255, - mean, / std, channels first.

A JPEG much larger than needed is decoded at 1/2, 1/4 or 1/8 of its size by its cosine transform, which is several
times as fast. The side that is scaled to `size` (for `squash` the shorter one) stays at least 2 * `size`, so pictures
under 4 * `size` are decoded in full.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import ceil, floor
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

VERSION = 1
"""Increment it with any change here that may alter a pixel; it changes the fingerprint of every model of pictures."""

DECODED_SCALE = 2
"""Minimum ratio to `size` of the side scaled to it, in a picture decoded at reduced size."""

KERNEL_MARGIN = 4
"""Pixels on either side that affect a pixel without downscaling: 3 for `lanczos`, and one for rounding."""

Pixels = NDArray[np.float32]
Color = tuple[int, int, int]
Channels = tuple[float, float, float]
Interpolation = Literal["nearest", "bilinear", "hamming", "bicubic", "lanczos"]
Resize = Literal["pad", "crop", "squash"]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The pixels that a model expects; `mean` and `std` are those of channels from 0 to 1."""

    size: int
    background: Color
    interpolation: Interpolation
    mean: Channels
    std: Channels
    resize: Resize = "pad"

    def decoded_side(self, width: int, height: int) -> int:
        """Return the smallest longer side at which a picture of `width` and `height` may be decoded."""
        if self.resize == "pad":
            return DECODED_SCALE * self.size
        return DECODED_SCALE * self.size * max(width, height) // min(width, height)

    def fingerprint_inputs(self) -> dict[str, object]:
        """Return everything here that affects pixels, for the fingerprint."""
        inputs = {"version": VERSION, **asdict(self)}
        if self.resize == "pad":  # left out, so that fingerprints from before the choice stay valid
            del inputs["resize"]
        return inputs


def preprocess(picture: Image.Image, full_size: tuple[int, int], spec: Preprocessing) -> Pixels:
    """Return `picture`, upright, as float32 of shape (3, size, size).

    `full_size` is its width and height in the file; `picture` may be decoded at a fraction of it.

    Raises:
        ValueError: its pixel format cannot be converted to RGB.
    """
    square = _SQUARES[spec.resize](flatten(picture, spec.background), full_size, spec)
    canvas = np.asarray(square, dtype=np.float32) / np.float32(255)
    normal = (canvas - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1))


def flatten(picture: Image.Image, background: Color) -> Image.Image:
    """Return `picture` in RGB, transparent pixels composited on `background`.

    Raises:
        ValueError: its pixel format cannot be converted to RGB.
    """
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {picture.mode!r} have no fixed range of brightness")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    canvas = Image.new("RGBA", picture.size, (*background, 255))
    return Image.alpha_composite(canvas, picture.convert("RGBA")).convert("RGB")


def letterbox(picture: Image.Image, full_size: tuple[int, int], spec: Preprocessing) -> Image.Image:
    """Return `picture`, in RGB, scaled by its longer side and centred on the background."""
    longest = max(full_size)
    width, height = (max(1, round(side * spec.size / longest)) for side in full_size)
    scaled = picture.resize((width, height), _resampling(spec))
    canvas = Image.new("RGB", (spec.size, spec.size), spec.background)
    canvas.paste(scaled, ((spec.size - width) // 2, (spec.size - height) // 2))
    return canvas


def crop_center(picture: Image.Image, full_size: tuple[int, int], spec: Preprocessing) -> Image.Image:
    """Return the centre of `picture`, in RGB, scaled by its shorter side.

    Only the centre is scaled, so that a strip of a million pixels takes no more memory than a square. It is scaled
    horizontally, then vertically, as Pillow scales a whole picture; for a crop Pillow may change the order, which shows
    at hard edges.
    """
    shortest = min(full_size)
    scaled = [spec.size * side // shortest for side in full_size]
    left, right = _middle(scaled[0], picture.width, spec.size)
    top, bottom = _middle(scaled[1], picture.height, spec.size)
    margin = KERNEL_MARGIN * max(1.0, (bottom - top) / spec.size)
    first, last = max(0, floor(top - margin)), min(picture.height, ceil(bottom + margin))
    rows = picture.crop((0, first, picture.width, last))
    across = rows.resize((spec.size, rows.height), _resampling(spec), (left, 0, right, rows.height))
    return across.resize((spec.size, spec.size), _resampling(spec), (0, top - first, spec.size, bottom - first))


def _middle(scaled: int, side: int, size: int) -> tuple[float, float]:
    """Return the start and end, in the unscaled `side`, of the middle `size` pixels of a side of length `scaled`."""
    start = (scaled - size) // 2
    return start * side / scaled, min(float(side), (start + size) * side / scaled)


def stretch(picture: Image.Image, full_size: tuple[int, int], spec: Preprocessing) -> Image.Image:
    """Return `picture`, in RGB, scaled to the square, ignoring its aspect ratio and so `full_size`."""
    return picture.resize((spec.size, spec.size), _resampling(spec))


def _resampling(spec: Preprocessing) -> Image.Resampling:
    return Image.Resampling[spec.interpolation.upper()]


_SQUARES: dict[Resize, Callable[[Image.Image, tuple[int, int], Preprocessing], Image.Image]] = {
    "pad": letterbox,
    "crop": crop_center,
    "squash": stretch,
}
