"""Pictures to the pixels a model takes: the one implementation, for everything that is ever embedded.

How a picture is scaled alone moves its vector (cosine 0.94 between two common ways), so the steps are fixed here and
counted by `VERSION`, which is part of every fingerprint:

1. the first frame, upright: EXIF orientation applied;
2. 16-bit grey cut to its upper 8 bits; transparency composited on `background`; RGB;
3. made a square of `size` by one of
   - `pad`: scaled so that the longer side is `size`, the other max(1, round(side * size / longest)), half to even;
     centred on a square of `background`, at (size - width) // 2 and (size - height) // 2;
   - `crop`: scaled so that the shorter side is `size`, the other floor(side * size / shortest); of that the middle,
     from (side - size) // 2 on;
   - `squash`: scaled to `size` by `size`, whatever its proportions;
4. float32, / 255, - mean, / std, channels first.

A JPEG much larger than needed is decoded at 1/2, 1/4 or 1/8 by its own cosine transform, which is several times
as fast, but never with the side that is scaled to `size` (for `squash` the shorter one) under 2 * `size`: under
4 * `size` nothing changes at all.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import ceil, floor
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

VERSION = 1
"""Raise it with any change here that may alter a pixel: every fingerprint of a model of pictures changes with it."""

DRAFT = 2
"""How much longer than `size` the side of a picture that is scaled to it must stay when it is decoded small."""

REACH = 4
"""Pixels on either side that bear on a pixel where nothing is scaled down: 3 for `lanczos`, and one for rounding."""

Pixels = NDArray[np.float32]
Colour = tuple[int, int, int]
Channels = tuple[float, float, float]
Interpolation = Literal["nearest", "bilinear", "hamming", "bicubic", "lanczos"]
Resize = Literal["pad", "crop", "squash"]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What a model wants its pixels to be; `mean` and `std` are those of channels from 0 to 1."""

    size: int
    background: Colour
    interpolation: Interpolation
    mean: Channels
    std: Channels
    resize: Resize = "pad"

    def decoded_side(self, width: int, height: int) -> int:
        """Return the longest side that a picture of `width` and `height` may be decoded down to."""
        if self.resize == "pad":
            return DRAFT * self.size
        return DRAFT * self.size * max(width, height) // min(width, height)

    def makings(self) -> dict[str, object]:
        """Return everything here that bears on a pixel, for the fingerprint."""
        makings = {"version": VERSION, **asdict(self)}
        if self.resize == "pad":  # fingerprints are older than the choice
            del makings["resize"]
        return makings


def pixels(picture: Image.Image, shown: tuple[int, int], wanted: Preprocessing) -> Pixels:
    """Return `picture`, upright, as float32 of shape (3, size, size).

    `shown` is its true width and height, of which the decoded one may be a fraction.

    Raises:
        ValueError: its kind of pixels has no RGB.
    """
    square = _SQUARES[wanted.resize](flattened(picture, wanted.background), shown, wanted)
    canvas = np.asarray(square, dtype=np.float32) / np.float32(255)
    normal = (canvas - np.array(wanted.mean, np.float32)) / np.array(wanted.std, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1))


def flattened(picture: Image.Image, background: Colour) -> Image.Image:
    """Return `picture` in RGB, what is transparent over `background`.

    Raises:
        ValueError: its kind of pixels has no RGB.
    """
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {picture.mode!r} have no fixed range of brightness")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    canvas = Image.new("RGBA", picture.size, (*background, 255))
    return Image.alpha_composite(canvas, picture.convert("RGBA")).convert("RGB")


def letterbox(picture: Image.Image, shown: tuple[int, int], wanted: Preprocessing) -> Image.Image:
    """Return `picture`, in RGB, scaled by its longer side and centred on the background."""
    longest = max(shown)
    width, height = (max(1, round(side * wanted.size / longest)) for side in shown)
    scaled = picture.resize((width, height), _resampling(wanted))
    canvas = Image.new("RGB", (wanted.size, wanted.size), wanted.background)
    canvas.paste(scaled, ((wanted.size - width) // 2, (wanted.size - height) // 2))
    return canvas


def crop_center(picture: Image.Image, shown: tuple[int, int], wanted: Preprocessing) -> Image.Image:
    """Return the middle of `picture`, in RGB, scaled by its shorter side.

    Only the middle is ever scaled, so that a line of a million pixels takes no more memory than a square. Across first,
    then down, as Pillow scales a whole picture: left to itself it may turn the order round, which shows in hard edges.
    """
    shortest = min(shown)
    scaled = [wanted.size * side // shortest for side in shown]
    left, right = _middle(scaled[0], picture.width, wanted.size)
    top, bottom = _middle(scaled[1], picture.height, wanted.size)
    margin = REACH * max(1.0, (bottom - top) / wanted.size)
    first, last = max(0, floor(top - margin)), min(picture.height, ceil(bottom + margin))
    rows = picture.crop((0, first, picture.width, last))
    across = rows.resize((wanted.size, rows.height), _resampling(wanted), (left, 0, right, rows.height))
    return across.resize((wanted.size, wanted.size), _resampling(wanted), (0, top - first, wanted.size, bottom - first))


def _middle(scaled: int, side: int, size: int) -> tuple[float, float]:
    """Return where the middle `size` of a side `scaled` long begin and end on the side as it is."""
    start = (scaled - size) // 2
    return start * side / scaled, min(float(side), (start + size) * side / scaled)


def stretch(picture: Image.Image, shown: tuple[int, int], wanted: Preprocessing) -> Image.Image:
    """Return `picture`, in RGB, scaled to the square whatever its proportions, so those `shown` bear on nothing."""
    return picture.resize((wanted.size, wanted.size), _resampling(wanted))


def _resampling(wanted: Preprocessing) -> Image.Resampling:
    return Image.Resampling[wanted.interpolation.upper()]


_SQUARES: dict[Resize, Callable[[Image.Image, tuple[int, int], Preprocessing], Image.Image]] = {
    "pad": letterbox,
    "crop": crop_center,
    "squash": stretch,
}
