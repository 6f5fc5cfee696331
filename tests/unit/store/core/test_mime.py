import io
import wave

import pytest
from PIL import Image

from services.common.content import ContentType
from services.store.core.mime import content_of, mime_type


@pytest.mark.parametrize("name", ["jpeg", "png", "gif", "webp", "bmp", "tiff"])
def test_pictures_are_told_from_their_first_bytes(name: str) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (3, 2)).save(picture, name)
    assert mime_type(picture.getvalue()[:64]) == f"image/{name}"


def test_wave_files_are_told() -> None:
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * 10)
    assert mime_type(sound.getvalue()[:64]) == "audio/wav"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\0\0\0\x20ftypisom", "video/mp4"),
        (b"fLaC\0", "audio/flac"),
        (b"ID3\x03", "audio/mpeg"),
        (b"\xff\xfb\x90\x64", "audio/mpeg"),
        (b"OggS\0", "audio/ogg"),
        (b"%PDF-1.7", "application/pdf"),
        (b"\xff\xff\xff\xff", "application/octet-stream"),
        ("text".encode("utf-16"), "application/octet-stream"),
        (b"RIFF1234????", "application/octet-stream"),
        (b"hello", "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)
def test_others_are_told_or_not(head: bytes, expected: str) -> None:
    assert mime_type(head) == expected


def test_a_type_says_what_content_it_is() -> None:
    kinds = {
        "image/png": ContentType.IMAGE,
        "video/mp4": ContentType.VIDEO,
        "audio/wav": ContentType.AUDIO,
        "application/pdf": None,
    }
    assert {mime: content_of(mime) for mime in kinds} == kinds
