"""MIME types, found from the first bytes of a file."""

from services.common.content import ContentType

SNIFFED_BYTES = 64
UNKNOWN = "application/octet-stream"
_PREFIXES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"%PDF-", "application/pdf"),
    (b"\x1aE\xdf\xa3", "video/webm"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_FTYP = {b"avif": "image/avif", b"heic": "image/heic", b"M4A ": "audio/mp4", b"qt  ": "video/quicktime"}
_CONTENTS = {kind.value: kind for kind in ContentType}


def mime_type(head: bytes) -> str:
    """Return the MIME type of a file that begins with `head`, `application/octet-stream` if it is unknown."""
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], UNKNOWN)
    if head[4:8] == b"ftyp":
        return _FTYP.get(head[8:12], "video/mp4")
    if _is_mpeg_audio(head):
        return "audio/mpeg"
    return next((mime for prefix, mime in _PREFIXES if head.startswith(prefix)), UNKNOWN)


def content_of(mime: str) -> ContentType | None:
    """Return the content type of `mime`, None if it is none that the store knows."""
    return _CONTENTS.get(mime.partition("/")[0])


def _is_mpeg_audio(head: bytes) -> bool:
    """Return whether `head` is an MPEG layer III frame: eleven sync bits, valid version, layer and bit rate."""
    return len(head) > 2 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2 and head[1] & 0x18 != 0x08 and head[2] < 0xF0
