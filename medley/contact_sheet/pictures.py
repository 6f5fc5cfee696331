"""Pictures for contact sheets: upright, small, and in a format that every browser supports."""

from io import BytesIO

from PIL import Image, ImageOps, UnidentifiedImageError

WEB_FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}
SMALL_BYTES = 150_000


def open_picture(data: bytes, longest_side: int) -> Image.Image | None:
    """Return the picture in `data`, upright, its longer side `longest_side`; None if it cannot be read."""
    try:
        with Image.open(BytesIO(data)) as picture:
            picture.draft("RGB", (longest_side, longest_side))
            upright = ImageOps.exif_transpose(picture)
            return ImageOps.contain(upright.convert("RGBA"), (longest_side, longest_side), Image.Resampling.LANCZOS)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        return None


def encode_for_web(data: bytes, longest_side: int) -> tuple[str, bytes] | None:
    """Return the MIME type and bytes of a picture to embed in a page; None if it cannot be read."""
    try:
        with Image.open(BytesIO(data)) as picture:
            mime_type = WEB_FORMATS.get(picture.format or "")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        return None
    if mime_type and len(data) <= SMALL_BYTES:
        return mime_type, data
    small = open_picture(data, longest_side)
    if small is None:
        return None
    encoded = BytesIO()
    if small.getchannel("A").getextrema() == (255, 255):
        small.convert("RGB").save(encoded, "JPEG", quality=88)
        return "image/jpeg", encoded.getvalue()
    small.save(encoded, "PNG")
    return "image/png", encoded.getvalue()
