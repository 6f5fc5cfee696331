"""Bytes to pictures: what they are, whether they can be trusted, and their pixels."""

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
from services.embedder.core.preprocessing import Pixels, Preprocessing, flattened, pixels

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
"""What Pillow may take a file for. The plugins are imported above: of those it has no other is ever loaded."""

INSPECTED_SIDE = 256
"""Longest side a JPEG may be decoded down to where nobody wants its pixels; all of its bytes are read all the same."""

WHITE = (255, 255, 255)

TOGETHER = 4
"""Pictures decoded in one go by a thread, so that a call's share of the threads is small."""

ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pixels are counted from the header, against our own limit, before anything is decoded; Pillow's fixed one would add a
# second answer to the same question.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """The largest picture that is decoded."""

    max_bytes: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Media:
    """What the bytes of a picture are; width and height as shown."""

    sha256: str
    mime_type: str
    size_bytes: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture: what its bytes are, and its pixels, float32 of shape (3, size, size)."""

    media: Media
    pixels: Pixels


class PictureReader:
    """Decodes pictures in worker threads."""

    def __init__(self, executor: BoundedExecutor, limits: PictureLimits) -> None:
        self._executor = executor
        self._limits = limits

    async def read(self, files: Sequence[bytes], wanted: Preprocessing) -> list[Picture | ServiceError]:
        """Return each picture with its pixels as `wanted`, or why it is refused."""
        return await self._executor.run_each(lambda file: self._read(file, wanted), files, chunk=TOGETHER)

    async def inspect(self, file: bytes) -> Media:
        """Return what the bytes are.

        Raises:
            MediaError: they are no picture, or a damaged one.
            TooManyPixelsError, MessageTooLargeError: it is too large.
        """
        return await self._executor.run(inspected, file, self._limits)

    def _read(self, file: bytes, wanted: Preprocessing) -> Picture | ServiceError:
        try:
            return read(file, self._limits, wanted)
        except ServiceError as error:
            return error


def read(file: bytes, limits: PictureLimits, wanted: Preprocessing) -> Picture:
    """Return the picture in `file` with its pixels as `wanted`; raises as `PictureReader.inspect`."""
    media, picture = _decoded(file, limits, wanted.decoded_side)
    with _refusing():
        return Picture(media, pixels(picture, (media.width, media.height), wanted))


def inspected(file: bytes, limits: PictureLimits) -> Media:
    """Return what `file` is, having decoded it; raises as `PictureReader.inspect`."""
    media, picture = _decoded(file, limits, lambda *_: INSPECTED_SIDE)
    with _refusing():
        flattened(picture, WHITE)
    return media


def _decoded(file: bytes, limits: PictureLimits, side: "_Side") -> tuple[Media, Image.Image]:
    picture = _opened(file, limits)
    with _refusing():
        full = picture.size
        _shrink(picture, side)
        picture.load()
        upright, turned = _upright(picture)
    if picture.format in ("JPEG", "MPO"):
        width, height = full[::-1] if turned else full
    else:
        width, height = upright.size
    mime_type = MIME_TYPES[picture.format or ""]
    return Media(hashlib.sha256(file).hexdigest(), mime_type, len(file), width, height), upright


def _opened(file: bytes, limits: PictureLimits) -> Image.Image:
    if not file:
        raise MediaError("is empty")
    if len(file) > limits.max_bytes:
        size, limit = str(len(file)), str(limits.max_bytes)
        raise MessageTooLargeError(f"media have {size} bytes, {limit} at most", size=size, limit=limit)
    with _refusing():
        picture = Image.open(BytesIO(file), formats=FORMATS)
    count = picture.width * picture.height
    if count > limits.max_pixels:
        raise TooManyPixelsError(count, limits.max_pixels)
    if not count:
        raise MediaError("has no pixels")
    return picture


_Side = Callable[[int, int], int]
"""The longest side that a picture of some width and height may be decoded down to."""


def _shrink(picture: Image.Image, shortened: _Side) -> None:
    """Let a JPEG be decoded small, its longer side `shortened` or more."""
    longest, side = max(picture.size), shortened(*picture.size)
    if picture.format in ("JPEG", "MPO") and longest > side:
        # Pillow divides side by side and takes the smaller quotient: ask for the same proportions, rounded down.
        picture.draft(None, tuple(max(1, length * side // longest) for length in picture.size))  # type: ignore[arg-type]


def _upright(picture: Image.Image) -> tuple[Image.Image, bool]:
    """Return `picture` as shown, and whether width and height changed places."""
    orientation = _orientation(picture)
    turn = TURNS.get(orientation)
    return (picture if turn is None else picture.transpose(turn)), orientation >= 5 and turn is not None


def _orientation(picture: Image.Image) -> int:
    try:
        orientation = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # broken EXIF raises anything; viewers show such a picture as it lies
        return 1
    return orientation if isinstance(orientation, int) else 1


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn what Pillow raises over bad bytes into `MediaError`.

    Its decoders raise whatever their parsing comes upon (OSError, SyntaxError, struct.error, IndexError and more), and
    nothing else runs inside this block: so everything counts as the file's fault, except want of memory.
    """
    try:
        yield
    except MemoryError as error:
        raise OverloadedError("not enough memory to decode the picture", queue="memory", limit="") from error
    except UnidentifiedImageError as error:
        raise MediaError("is no JPEG, PNG, WebP, GIF, BMP or TIFF file, or its header is damaged") from error
    except Exception as error:
        raise MediaError(f"cannot be decoded: {str(error) or type(error).__name__}") from error
