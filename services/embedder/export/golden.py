"""Golden inputs that every built model is checked with, chosen to reveal common errors."""

from collections.abc import Mapping
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

TEXTS: Mapping[str, str] = {
    "plain": "a photo of a red shoe on a wooden table",
    "question": "How do I change the battery of a smoke detector?",
    "one letter": "a",
    "one sign": ".",
    "spaces around": "  two blue hats  ",
    "umlauts": "Ein grüner Stuhl für 20 €, größer als 1 m",
    "Cyrillic": "старый деревянный дом у реки",
    "Japanese": "京都の古い寺",
    "Arabic": "قطة تنام على الأريكة",
    "emoji": "happy birthday 🎂🎉",
    "capitals and signs": "WARNING!!! Do NOT open — (see p. 12; §3)…",
    "combining accents": "cafe\u0301 nai\u0308ve",
    "lines": "first line\nsecond line\tand a tab",
    "numbers": "SKU 48-221/B, 12.5 x 30 cm, $19.99",
    "long": "a long description of a house with many rooms and a garden behind it, " * 60,
}

Sound = NDArray[np.float64]


def pictures() -> dict[str, bytes]:
    """Return picture files: of many aspect ratios, tiny, grey, transparent, rotated."""
    scene = _draw_scene((320, 200))
    return {
        "square": _encode(_draw_scene((224, 224))),
        "wide": _encode(_draw_scene((500, 150))),
        "tall": _encode(_draw_scene((97, 311))),
        "odd": _encode(_draw_scene((225, 227))),
        "tiny": _encode(_draw_scene((5, 3))),
        "one pixel": _encode(Image.new("RGB", (1, 1), (200, 30, 90))),
        "grey": _encode(scene.convert("L")),
        "transparent": _encode(_make_transparent(scene)),
        "palette": _encode(scene.quantize(16)),
        "turned by EXIF": _rotated(scene),
        "photograph": _encode(_draw_scene((300, 260)), "JPEG", quality=92),
        "noise": _encode(Image.fromarray(np.random.default_rng(7).integers(0, 256, (180, 240, 3), np.uint8))),
    }


def sounds(sampling_rate: int) -> dict[str, Sound]:
    """Return sounds of one channel, values -1 to 1: short, long, silent, noise."""
    second = np.arange(sampling_rate) / sampling_rate
    noise = np.random.default_rng(7).normal(0, 0.1, sampling_rate * 3)
    return {
        "tone": np.sin(2 * np.pi * 440 * second),
        "sweep": np.sin(2 * np.pi * (200 + 900 * second) * second),
        "noise": noise.clip(-1, 1),
        "silence": np.zeros(sampling_rate // 2),
        "ten seconds": np.tile(np.sin(2 * np.pi * 220 * second) * np.exp(-5 * second), 10),
    }


def _draw_scene(size: tuple[int, int]) -> Image.Image:
    """Draw a scene: sky, ground, a circle, a rectangle, lines."""
    width, height = size
    slope = np.linspace(0, 1, height)[:, None, None]
    sky = np.array([60, 120, 220]) * (1 - slope) + np.array([240, 200, 120]) * slope
    picture = Image.fromarray(np.broadcast_to(sky, (height, width, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, height * 0.7, width, height), fill=(50, 140, 60))
    draw.ellipse((width * 0.1, height * 0.1, width * 0.35, height * 0.45), fill=(250, 230, 80))
    draw.rectangle((width * 0.5, height * 0.35, width * 0.85, height * 0.8), fill=(180, 60, 50), outline=(30, 30, 30))
    for step in range(5):
        draw.line((width * step / 5, height, width, height * step / 5), fill=(20, 20, 60))
    return picture


def _make_transparent(picture: Image.Image) -> Image.Image:
    shown = picture.convert("RGBA")
    mask = Image.linear_gradient("L").resize(picture.size)
    shown.putalpha(mask)
    return shown


def _rotated(picture: Image.Image) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = 6
    return _encode(picture, "JPEG", quality=92, exif=tags)


def _encode(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
