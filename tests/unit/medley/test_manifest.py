import pytest

from medley.manifest import ManifestError, decode_manifest, encode_manifest

FIELDS = {"collection": "collections/shoes", "files": [{"path": "ä", "items": 2}], "none": None}


def test_fields_come_back_as_they_were() -> None:
    assert decode_manifest(encode_manifest(FIELDS, 2), (1, 2)) == FIELDS


@pytest.mark.parametrize("place", [0, 20, -2, -30])
def test_any_changed_byte_is_noticed(place: int) -> None:
    content = bytearray(encode_manifest(FIELDS, 1))
    content[place] ^= 1
    with pytest.raises(ManifestError, match="SHA-256"):
        decode_manifest(bytes(content), [1])


@pytest.mark.parametrize("content", [b"", b"{}", encode_manifest(FIELDS, 1)[:-1], encode_manifest(FIELDS, 1) + b"\n"])
def test_what_is_cut_off_or_added_to_is_noticed(content: bytes) -> None:
    with pytest.raises(ManifestError, match="SHA-256"):
        decode_manifest(content, [1])


def test_another_format_is_named() -> None:
    with pytest.raises(ManifestError, match="has format 3, this version of Medley reads 1, 2"):
        decode_manifest(encode_manifest(FIELDS, 3), (1, 2))
