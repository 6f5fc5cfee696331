"""Which bytes are pictures, and what is said of those that are not."""

import hashlib
import random
import struct
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from PIL import Image

from services.common.concurrency.executors import BoundedExecutor
from services.common.errors import MediaError, MessageTooLargeError, ServiceError
from services.embedder.core.errors import TooManyPixelsError
from services.embedder.media.images import ImageLimits, ImageReader, Media, decode_image, inspect_image
from tests.unit.embedder.files import encoded, exif, halves, noise, plain, wanted

LIMITS = ImageLimits(max_bytes=2**20, max_pixels=1_000_000)
KINDS = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tiff"}

# Of a damaged file Pillow may warn and go on; as an error here, the warning would refuse what a server takes.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_tell_the_type(kind: str) -> None:
    file = plain((9, 7), kind=kind)
    expected = Media(hashlib.sha256(file).hexdigest(), f"image/{KINDS[kind]}", len(file), 9, 7)
    assert inspect_image(file, LIMITS) == expected
    assert decode_image(file, LIMITS, wanted()).media == expected


def test_a_jpeg_with_more_pictures_behind_it_is_a_jpeg() -> None:
    file = encoded(noise((9, 7)), "MPO", save_all=True, append_images=[noise((9, 7))])
    assert inspect_image(file, LIMITS).mime_type == "image/jpeg"


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (b"", "is empty"),
        (b"hello", "is no JPEG, PNG, WebP, GIF, BMP or TIFF file"),
        (b"\x89PNG\r\n\x1a\n", "is no JPEG, PNG"),
        (b"\xff\xd8\xff", "is no JPEG, PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is no JPEG, PNG"),
        (encoded(halves(), "PPM"), "is no JPEG, PNG"),
        (encoded(halves(), "ICO"), "is no JPEG, PNG"),
        (encoded(halves(), "PDF"), "is no JPEG, PNG"),
        (plain((300, 300), kind="PNG")[:-60], "cannot be decoded"),
        (encoded(noise((64, 64)), "JPEG")[:-200], "cannot be decoded: image file is truncated"),
        (encoded(noise((64, 64)), "WEBP", lossless=True)[:-200], "cannot be decoded"),
        (encoded(noise((64, 64)), "BMP")[:-200], "cannot be decoded: image file is truncated"),
        (encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "pixels of mode 'F'"),
        (encoded(Image.fromarray(np.ones((4, 4), np.int32)), "TIFF"), "pixels of mode 'I'"),
    ],
)
def test_what_is_no_whole_picture_is_refused_with_the_problem(file: bytes, problem: str) -> None:
    for refuse in (lambda: inspect_image(file, LIMITS), lambda: decode_image(file, LIMITS, wanted())):
        with pytest.raises(MediaError, match=problem) as caught:
            refuse()
        assert str(caught.value) == f"media {caught.value.metadata['problem']}"


def test_a_name_that_says_otherwise_does_not_count() -> None:
    gif = plain(kind="GIF")
    with pytest.raises(MediaError):
        inspect_image(b"\xff\xd8\xff\xe0" + gif[4:], LIMITS)


def test_pixels_are_counted_before_anything_is_decoded() -> None:
    bomb = _png_header(60_000, 60_000)
    with pytest.raises(TooManyPixelsError) as caught:
        inspect_image(bomb, LIMITS)
    assert caught.value.metadata == {"pixels": "3600000000", "limit": "1000000"}


def test_the_limit_itself_is_allowed() -> None:
    assert inspect_image(plain((1000, 1000)), LIMITS).width == 1000
    with pytest.raises(TooManyPixelsError):
        inspect_image(plain((1001, 1000)), LIMITS)


def test_a_picture_over_pillows_own_limit_is_a_matter_of_ours() -> None:
    wide = ImageLimits(max_bytes=2**20, max_pixels=10**12)
    with pytest.raises(MediaError, match="cannot be decoded"):
        inspect_image(_png_header(20_000, 10_000), wide)


def test_bytes_are_counted_first() -> None:
    with pytest.raises(MessageTooLargeError) as caught:
        inspect_image(b"x" * (2**20 + 1), LIMITS)
    assert caught.value.metadata == {"size": str(2**20 + 1), "limit": str(2**20)}


def test_broken_exif_leaves_a_picture_as_it_lies() -> None:
    file = bytearray(encoded(halves((40, 20)), "JPEG", exif=exif(6)))
    assert inspect_image(bytes(file), LIMITS).height == 40
    start = file.index(b"Exif\0\0") + 6
    file[start : start + 8] = b"broken!!"
    media = inspect_image(bytes(file), LIMITS)
    assert (media.width, media.height) == (40, 20)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_is_passed_over(orientation: int) -> None:
    media = inspect_image(encoded(halves((40, 20)), "JPEG", exif=exif(orientation)), LIMITS)
    assert (media.width, media.height) == (40, 20)


async def test_a_refused_picture_leaves_the_others() -> None:
    async with BoundedExecutor("embedder", 2) as executor:
        found = await ImageReader(executor, LIMITS).read([b"", plain(), b"no", plain()] * 5, wanted())
    assert [isinstance(picture, ServiceError) for picture in found] == [True, False, True, False] * 5


def _damaged(seed: int) -> bytes:
    """A small picture of some format with some bytes changed or its end cut off."""
    chance = random.Random(seed)
    picture = halves((24, 16))
    makers = [
        lambda: encoded(picture, "JPEG", exif=exif(6)),
        lambda: encoded(picture, "JPEG", progressive=True),
        lambda: encoded(picture.convert("P"), "PNG", transparency=1, exif=exif(3)),
        lambda: encoded(picture.convert("RGBA"), "WEBP", exif=exif(8)),
        lambda: encoded(picture, "GIF", save_all=True, append_images=[picture.rotate(90)]),
        lambda: encoded(picture.convert("1"), "BMP"),
        lambda: encoded(picture, "TIFF", compression=chance.choice([None, "tiff_lzw", "jpeg", "tiff_deflate"])),
        lambda: encoded(picture, "MPO", save_all=True, append_images=[picture]),
    ]
    file = bytearray(chance.choice(makers)())
    if chance.random() < 0.3:
        file = file[: chance.randrange(len(file))]
    reach = chance.choice([32, 256, len(file)])
    for _ in range(chance.choice([1, 2, 5, 20])):
        if file:
            file[chance.randrange(min(len(file), reach))] = chance.randrange(256)
    return bytes(file)


def _media(file: bytes) -> Media:
    return decode_image(file, LIMITS, wanted()).media


def _verdict(look: Callable[[], Media]) -> str:
    """What looking comes to; anything but a picture or a refusal is raised."""
    try:
        return look().sha256
    except (MediaError, TooManyPixelsError) as error:
        return type(error).__name__


def test_damage_is_refused_or_survived_but_never_a_crash() -> None:
    verdicts = []
    for seed in range(600):
        file = _damaged(seed)
        verdicts.append(_verdict(partial(_media, file)))
        assert _verdict(partial(inspect_image, file, LIMITS)) == verdicts[-1], seed
    assert verdicts.count("MediaError") > 100
    assert sum(len(verdict) == 64 for verdict in verdicts) > 100


def _png_header(width: int, height: int) -> bytes:
    """The start of a PNG that says how large it is, and a few bytes of what should follow."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
