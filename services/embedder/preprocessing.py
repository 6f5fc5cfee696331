"""Pictures to the pixels a model takes: the one implementation, for everything that is ever embedded.

How a picture is scaled alone moves its vector (cosine 0.94 between two common ways), so the steps are fixed here and
counted by `VERSION`, which is part of every passport:

1. the first frame, upright: EXIF orientation applied;
2. 16-bit grey cut to its upper 8 bits; transparency composited on `background`; RGB;
3. scaled so that the longer side is `size`, the other max(1, round(side * size / longest)), half to even;
4. centred on a square of `background`, at (size - width) // 2 and (size - height) // 2;
5. float32, / 255, - mean, / std, channels first.

A JPEG much larger than needed is decoded at 1/2, 1/4 or 1/8 by its own cosine transform, which is several times
as fast, but never with the longer side under 2 * `size`: under 4 * `size` nothing changes at all.
"""

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

VERSION = 1
"""Raise it with any change here that may alter a pixel: every passport of a model of pictures changes with it."""

DRAFT = 2
"""How much longer than `size` the longer side of a picture must stay when it is decoded small."""

Pixels = NDArray[np.float32]
Colour = tuple[int, int, int]
Channels = tuple[float, float, float]
Interpolation = Literal["nearest", "bilinear", "hamming", "bicubic", "lanczos"]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What a model wants its pixels to be; `mean` and `std` are those of channels from 0 to 1."""

    size: int
    background: Colour
    interpolation: Interpolation
    mean: Channels
    std: Channels

    @property
    def decoded_side(self) -> int:
        """Longest side that a picture may be decoded down to."""
        return DRAFT * self.size

    def makings(self) -> dict[str, object]:
        """Return everything here that bears on a pixel, for the passport."""
        return {"version": VERSION, **asdict(self)}


def pixels(picture: Image.Image, shown: tuple[int, int], wanted: Preprocessing) -> Pixels:
    """Return `picture`, upright, as float32 of shape (3, size, size).

    `shown` is its true width and height, of which the decoded one may be a fraction.

    Raises:
        ValueError: its kind of pixels has no RGB.
    """
    canvas = np.asarray(padded(flattened(picture, wanted.background), shown, wanted), dtype=np.float32) / np.float32(
        255
    )
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


def padded(picture: Image.Image, shown: tuple[int, int], wanted: Preprocessing) -> Image.Image:
    """Return `picture`, in RGB, scaled by its longer side and centred on the background."""
    longest = max(shown)
    width, height = (max(1, round(side * wanted.size / longest)) for side in shown)
    scaled = picture.resize((width, height), Image.Resampling[wanted.interpolation.upper()])
    canvas = Image.new("RGB", (wanted.size, wanted.size), wanted.background)
    canvas.paste(scaled, ((wanted.size - width) // 2, (wanted.size - height) // 2))
    return canvas
