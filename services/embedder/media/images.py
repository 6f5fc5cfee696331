"""Decoding of picture files: format detection, limits and pixels."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, UnidentifiedImageError
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from services.common.concurrency.executors import BoundedExecutor
from services.common.errors import MediaError, MessageTooLargeError, OverloadedError, ServiceError
from services.embedder.core.errors import TooManyPixelsError
from services.embedder.core.preprocessing import Pixels, Preprocessing, flatten, preprocess

MIME_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # a JPEG with further pictures behind it: what many cameras write
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
}
FORMATS = tuple(
    plugin.format for plugin in (JpegImageFile, PngImageFile, WebPImageFile, GifImageFile, BmpImageFile, TiffImageFile)
)
"""The formats that Pillow may detect; only their plugins, imported above, are ever loaded."""

INSPECTION_SIDE = 256
"""Longer side at which a JPEG is decoded to inspect it; all of its bytes are read anyway."""

WHITE = (255, 255, 255)

IMAGES_PER_TASK = 4
"""Pictures that a thread decodes as one task; few, so that concurrent calls share the threads."""

ORIENTATION = 0x0112
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# `_open` checks the number of pixels in the header against `ImageLimits`; Pillow's own fixed limit is not needed.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits on pictures to decode."""

    max_bytes: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Media:
    """The properties of a picture file; width and height after EXIF orientation."""

    sha256: str
    mime_type: str
    size_bytes: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A decoded picture: the properties of its file, and its pixels, float32 of shape (3, size, size)."""

    media: Media
    pixels: Pixels


class ImageReader:
    """Decodes pictures in worker threads."""

    def __init__(self, executor: BoundedExecutor, limits: ImageLimits) -> None:
        self._executor = executor
        self._limits = limits

    async def read(self, files: Sequence[bytes], spec: Preprocessing) -> list[DecodedImage | ServiceError]:
        """Return each picture with its pixels prepared by `spec`, or why it is refused."""
        return await self._executor.run_each(lambda file: self._decode_one(file, spec), files, chunk=IMAGES_PER_TASK)

    async def inspect(self, file: bytes) -> Media:
        """Return the properties of a file.

        Raises:
            MediaError: it is no picture, or a damaged one.
            TooManyPixelsError, MessageTooLargeError: it is too large.
        """
        return await self._executor.run(inspect_image, file, self._limits)

    def _decode_one(self, file: bytes, spec: Preprocessing) -> DecodedImage | ServiceError:
        try:
            return decode_image(file, self._limits, spec)
        except ServiceError as error:
            return error


def decode_image(file: bytes, limits: ImageLimits, spec: Preprocessing) -> DecodedImage:
    """Return the picture in `file` with its pixels prepared by `spec`; raises as `ImageReader.inspect`."""
    media, picture = _decode(file, limits, spec.decoded_side)
    with _translate_errors():
        return DecodedImage(media, preprocess(picture, (media.width, media.height), spec))


def inspect_image(file: bytes, limits: ImageLimits) -> Media:
    """Decode `file` and return its properties; raises as `ImageReader.inspect`."""
    media, picture = _decode(file, limits, lambda *_: INSPECTION_SIDE)
    with _translate_errors():
        flatten(picture, WHITE)
    return media


def _decode(file: bytes, limits: ImageLimits, side: "_Side") -> tuple[Media, Image.Image]:
    picture = _open(file, limits)
    with _translate_errors():
        full = picture.size
        _reduce(picture, side)
        picture.load()
        upright, turned = _apply_orientation(picture)
    if picture.format in ("JPEG", "MPO"):
        width, height = full[::-1] if turned else full
    else:
        width, height = upright.size
    mime_type = MIME_TYPES[picture.format or ""]
    return Media(hashlib.sha256(file).hexdigest(), mime_type, len(file), width, height), upright


def _open(file: bytes, limits: ImageLimits) -> Image.Image:
    if not file:
        raise MediaError("is empty")
    if len(file) > limits.max_bytes:
        size, limit = str(len(file)), str(limits.max_bytes)
        raise MessageTooLargeError(f"media have {size} bytes, {limit} at most", size=size, limit=limit)
    with _translate_errors():
        picture = Image.open(BytesIO(file), formats=FORMATS)
    count = picture.width * picture.height
    if count > limits.max_pixels:
        raise TooManyPixelsError(count, limits.max_pixels)
    if not count:
        raise MediaError("has no pixels")
    return picture


_Side = Callable[[int, int], int]
"""The smallest longer side at which a picture of some width and height may be decoded."""


def _reduce(picture: Image.Image, min_side: _Side) -> None:
    """Set a JPEG to be decoded at reduced size, its longer side at least `min_side`."""
    longest, side = max(picture.size), min_side(*picture.size)
    if picture.format in ("JPEG", "MPO") and longest > side:
        # Pillow uses the smaller quotient of the two sides: ask for the same aspect ratio, rounded down.
        picture.draft(None, tuple(max(1, length * side // longest) for length in picture.size))  # type: ignore[arg-type]


def _apply_orientation(picture: Image.Image) -> tuple[Image.Image, bool]:
    """Return `picture` with its EXIF orientation applied, and whether width and height were swapped."""
    orientation = _orientation(picture)
    turn = TRANSPOSES.get(orientation)
    return (picture if turn is None else picture.transpose(turn)), orientation >= 5 and turn is not None


def _orientation(picture: Image.Image) -> int:
    try:
        orientation = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # broken EXIF may raise anything; viewers ignore it too
        return 1
    return orientation if isinstance(orientation, int) else 1


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Translate Pillow's errors into `MediaError`.

    Its decoders raise many kinds for bad files (OSError, SyntaxError, struct.error, IndexError and more), and only they
    run inside this block: so every error but MemoryError means that the file is damaged.
    """
    try:
        yield
    except MemoryError as error:
        raise OverloadedError("not enough memory to decode the picture", queue="memory", limit="") from error
    except UnidentifiedImageError as error:
        raise MediaError("is no JPEG, PNG, WebP, GIF, BMP or TIFF file, or its header is damaged") from error
    except Exception as error:
        raise MediaError(f"cannot be decoded: {str(error) or type(error).__name__}") from error
