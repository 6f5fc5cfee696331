"""Pictures to pixels, with the semantics of the `image` part of a `model.json`.

The embedder has the product's implementation; this one exists so that training needs no service.
"""

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)


def flatten(picture: Image.Image, background: Colour = WHITE) -> Image.Image:
    """Return `picture` upright, in RGB, its transparent parts over `background`."""
    upright = ImageOps.exif_transpose(picture).convert("RGBA")
    canvas = Image.new("RGBA", upright.size, (*background, 255))
    return Image.alpha_composite(canvas, upright).convert("RGB")


def pad(picture: Image.Image, size: int, background: Colour = WHITE) -> Image.Image:
    """Scale `picture` until its longer side is `size` and centre it on a square of `background`."""
    longest = max(picture.size)
    width, height = (max(1, round(side * size / longest)) for side in picture.size)
    canvas = Image.new("RGB", (size, size), background)
    scaled = picture.resize((width, height), Image.Resampling.BICUBIC)
    canvas.paste(scaled, ((size - width) // 2, (size - height) // 2))
    return canvas


def square(encoded: bytes, size: int) -> np.ndarray:
    """Decode a picture file into uint8 pixels, shape (size, size, 3)."""
    with Image.open(BytesIO(encoded)) as picture:
        return np.asarray(pad(flatten(picture), size))
