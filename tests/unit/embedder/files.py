"""Picture files made for the tests."""

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from services.embedder.core.preprocessing import Preprocessing

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
ORIENTATION = 0x0112


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(size: tuple[int, int] = (8, 8), colour: tuple[int, int, int] = RED, kind: str = "PNG") -> bytes:
    return encoded(Image.new("RGB", size, colour), kind)


def noise(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """A picture of random pixels, the same every time."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def halves(size: tuple[int, int] = (40, 20)) -> Image.Image:
    """The left half red, the right half blue."""
    picture = Image.new("RGB", size, RED)
    picture.paste(BLUE, (size[0] // 2, 0, *size))
    return picture


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def wanted(size: int = 16, background: tuple[int, int, int] = WHITE) -> Preprocessing:
    """Preprocessing whose channels stay 0 to 1."""
    return Preprocessing(size, background, "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
