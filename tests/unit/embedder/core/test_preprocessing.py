"""Golden pictures: what every step of preprocessing comes to, worked out by hand."""

import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from services.embedder.core.preprocessing import Pixels, Preprocessing, Resize
from services.embedder.media.images import ImageLimits, decode_image
from tests.unit.embedder.files import BLACK, BLUE, GREEN, RED, WHITE, encoded, exif, halves, noise, plain, wanted

LIMITS = ImageLimits(max_bytes=2**24, max_pixels=2**24)


def canvas(file: bytes, how: Preprocessing | None = None) -> Pixels:
    """Height, width, channels from 0 to 255: easier to compare with colours."""
    return decode_image(file, LIMITS, how or wanted()).pixels.transpose(1, 2, 0) * 255


def colour(area: Pixels) -> tuple[int, ...]:
    """The one colour of `area`."""
    assert np.ptp(area, axis=(0, 1)).max() < 0.5
    return tuple(int(value) for value in area[0, 0].round())


def test_a_wide_picture_is_centred_between_bands_of_background() -> None:
    area = canvas(plain((8, 4)), wanted(16, GREEN))
    assert area.shape == (16, 16, 3)
    assert (colour(area[:4]), colour(area[4:12]), colour(area[12:])) == (GREEN, RED, GREEN)


def test_a_tall_picture_keeps_its_proportions() -> None:
    area = canvas(plain((3, 12)), wanted(16, BLUE))
    assert (colour(area[:, :6]), colour(area[:, 6:10]), colour(area[:, 10:])) == (BLUE, RED, BLUE)


def test_an_odd_rest_goes_to_the_right_and_bottom() -> None:
    area = canvas(plain((16, 5)))  # 5 rows on 16: (16 - 5) // 2 = 5 above, 6 below
    assert (colour(area[:5]), colour(area[5:10]), colour(area[10:])) == (WHITE, RED, WHITE)


def test_one_pixel_fills_the_square() -> None:
    assert colour(canvas(plain((1, 1)))) == RED


@pytest.mark.parametrize(("size", "place"), [((500, 1), np.s_[7:8, :]), ((1, 500), np.s_[:, 7:8])])
def test_a_line_stays_one_pixel_thick(size: tuple[int, int], place: tuple[slice, slice]) -> None:
    area = canvas(plain(size))
    assert colour(area[place]) == RED
    assert (area == 255).all(axis=2).sum() == 16 * 15


def test_half_a_pixel_is_rounded_to_even() -> None:
    assert (canvas(plain((32, 5)))[:, 0] == RED).all(axis=1).sum() == 2  # 5 * 16 / 32 = 2.5
    assert (canvas(plain((32, 7)))[:, 0] == RED).all(axis=1).sum() == 4  # 7 * 16 / 32 = 3.5


def squared(resize: Resize, size: int = 16) -> Preprocessing:
    return replace(wanted(size), resize=resize)


@pytest.mark.parametrize("size", [(33, 21), (21, 33), (16, 16), (5, 40), (100, 17), (1, 1), (1, 300)])
def test_crop_keeps_the_middle_of_the_picture_scaled_by_its_shorter_side(size: tuple[int, int]) -> None:
    picture = noise(size)
    width, height = (16 * side // min(size) for side in size)
    left, top = (width - 16) // 2, (height - 16) // 2
    scaled = picture.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + 16, top + 16))
    assert np.abs(canvas(encoded(picture), squared("crop")) - np.asarray(scaled)).max() <= 1.01


def test_crop_takes_no_more_memory_for_a_long_line() -> None:
    tracemalloc.start()
    assert colour(canvas(plain((200_000, 1)), squared("crop", 64))) == RED
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


@pytest.mark.parametrize("size", [(33, 21), (21, 33), (5, 40), (1, 1)])
def test_squash_scales_both_sides_to_the_square(size: tuple[int, int]) -> None:
    picture = noise(size)
    scaled = picture.resize((16, 16), Image.Resampling.BICUBIC)
    assert np.abs(canvas(encoded(picture), squared("squash")) - np.asarray(scaled)).max() < 1e-3


@pytest.mark.parametrize("resize", ["crop", "squash"])
@pytest.mark.parametrize("size", [(63, 900), (900, 63), (400, 33)])
def test_a_jpeg_whose_shorter_side_is_small_is_decoded_whole(resize: Resize, size: tuple[int, int]) -> None:
    file = encoded(noise(size), "JPEG", quality=90)
    assert np.array_equal(canvas(file, squared(resize)), canvas(encoded(_decoded(file)), squared(resize)))


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_a_large_jpeg_made_square_hardly_differs_decoded_small(resize: Resize) -> None:
    file = encoded(noise((6, 4)).resize((1000, 700), Image.Resampling.BICUBIC), "JPEG", quality=95)
    whole = canvas(encoded(_decoded(file)), squared(resize))
    assert np.abs(canvas(file, squared(resize)) - whole).mean() < 2


def test_grey_has_three_equal_channels() -> None:
    assert colour(canvas(encoded(Image.new("L", (4, 4), 77)))) == (77, 77, 77)


def test_black_and_white() -> None:
    assert colour(canvas(encoded(Image.new("1", (4, 4), 1)))) == WHITE


def test_sixteen_bit_grey_is_cut_to_eight() -> None:
    deep = Image.fromarray(np.full((4, 4), 0x4D99, np.uint16))
    assert deep.mode == "I;16"
    assert colour(canvas(encoded(deep))) == (0x4D,) * 3
    assert colour(canvas(encoded(deep, "TIFF"))) == (0x4D,) * 3


def test_sixteen_bit_grey_of_the_other_byte_order() -> None:
    deep = Image.frombytes("I;16B", (4, 4), b"\x4d\x99" * 16)
    assert colour(canvas(encoded(deep, "TIFF"))) == (0x4D,) * 3


def test_a_palette_is_looked_up() -> None:
    assert colour(canvas(encoded(Image.new("RGB", (4, 4), GREEN).quantize(2)))) == GREEN


def test_a_transparent_palette_entry_shows_the_background() -> None:
    picture = halves((16, 16)).quantize(2)
    hidden = picture.getpixel((0, 0))
    area = canvas(encoded(picture, transparency=hidden), wanted(16, GREEN))
    assert (colour(area[:, :8]), colour(area[:, 8:])) == (GREEN, BLUE)


def test_alpha_is_composited_on_the_background() -> None:
    clear = Image.new("RGBA", (16, 16), (*RED, 0))
    half = Image.new("RGBA", (16, 16), (*RED, 128))
    assert colour(canvas(encoded(clear), wanted(16, BLUE))) == BLUE
    assert colour(canvas(encoded(half), wanted(16, BLACK))) == (128, 0, 0)
    assert colour(canvas(encoded(half, "WEBP", lossless=True), wanted(16, WHITE))) == (255, 127, 127)


def test_grey_with_alpha() -> None:
    assert colour(canvas(encoded(Image.new("LA", (16, 16), (10, 0))))) == WHITE


def test_a_transparent_colour_of_a_png() -> None:
    area = canvas(encoded(halves((16, 16)), transparency=RED), wanted(16, GREEN))
    assert (colour(area[:, :8]), colour(area[:, 8:])) == (GREEN, BLUE)


def test_cmyk_becomes_rgb() -> None:
    area = canvas(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100))
    assert np.abs(area - RED).max() < 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # stored turned against the way a viewer turns it
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    shown = halves((32, 16))
    shown.paste(GREEN, (0, 0, 16, 8))  # unlike itself under every turn
    stored = shown.transpose(turns[orientation]) if orientation in turns else shown
    options: Mapping[str, int] = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": 1}}.get(kind, {})
    file = encoded(stored, kind, exif=exif(orientation), **options)
    found = decode_image(file, LIMITS, wanted(32))
    assert (found.media.width, found.media.height) == (32, 16)
    area = found.pixels.transpose(1, 2, 0)[8:24] * 255
    for there, expected in ((area[:8, :16], GREEN), (area[8:, :16], RED), (area[:, 16:], BLUE)):
        assert np.abs(there[1:-1, 1:-1].mean(axis=(0, 1)) - expected).max() < 12


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (16, 16), shade) for shade in (RED, GREEN, BLUE)]
    for kind in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        file = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert colour(canvas(file)) == RED, kind


def test_channels_are_normalised_and_come_first() -> None:
    how = Preprocessing(4, WHITE, "bicubic", (0.5, 0.25, 0.0), (0.5, 0.25, 2.0))
    pixels = decode_image(plain((4, 4), (255, 0, 255)), LIMITS, how).pixels
    assert pixels.dtype == np.float32
    assert pixels.flags.c_contiguous
    assert pixels[:, 0, 0].tolist() == [1.0, -1.0, 0.5]


@pytest.mark.parametrize("size", [(63, 40), (40, 63), (30, 20), (17, 1)])
def test_a_jpeg_under_four_times_the_size_is_decoded_whole(size: tuple[int, int]) -> None:
    file = encoded(noise(size), "JPEG", quality=90)
    assert np.array_equal(canvas(file), canvas(encoded(_decoded(file))))


@pytest.mark.parametrize("size", [(64, 64), (200, 130), (301, 1000), (1000, 700)])
def test_a_large_jpeg_decoded_small_hardly_differs(size: tuple[int, int]) -> None:
    file = encoded(noise((6, 4)).resize(size, Image.Resampling.BICUBIC), "JPEG", quality=95)
    found = decode_image(file, LIMITS, wanted())
    assert (found.media.width, found.media.height) == size
    whole = canvas(encoded(_decoded(file)))
    assert np.abs(canvas(file) - whole).mean() < 2


def test_interpolation_is_the_models() -> None:
    file = encoded(noise((50, 50)))
    assert not np.array_equal(canvas(file), canvas(file, replace(wanted(), interpolation="nearest")))
    source = np.asarray(noise((32, 32)))
    nearest = canvas(encoded(Image.fromarray(source)), replace(wanted(16), interpolation="nearest"))
    assert np.allclose(nearest, source[1::2, 1::2], atol=1e-3)


def _decoded(file: bytes) -> Image.Image:
    return Image.open(BytesIO(file)).convert("RGB")
