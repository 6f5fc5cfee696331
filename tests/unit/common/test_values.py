"""Names, metadata, vectors, pages and version tokens: what is taken and what is refused."""

import numpy as np
import pytest

from services.common.errors import (
    ArgumentError,
    DimensionError,
    IdError,
    MetadataError,
    TokenError,
    VectorError,
)
from services.common.metadata import parse_metadata
from services.common.names import validate_collection_name, validate_item_id, validate_space_name
from services.common.paging import decode_page_token, encode_page_token, validate_page_size
from services.common.vectors import Metric, from_bytes, to_bytes, validate_comparable
from services.common.versions import Version


@pytest.mark.parametrize("name", ["collections/a", "collections/my-photos_2", "collections/" + "a" * 63])
def test_collection_names_taken(name: str) -> None:
    assert validate_collection_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "photos", "collections/", "collections/A", "collections/1a", "collections/a/b", "collections/" + "a" * 64],
)
def test_collection_names_refused(name: str) -> None:
    with pytest.raises(ArgumentError):
        validate_collection_name(name)


@pytest.mark.parametrize("name", ["", "Clip", "my-space", "1a", "a" * 64, "a\n"])
def test_space_names_refused(name: str) -> None:
    with pytest.raises(ArgumentError):
        validate_space_name(name)


@pytest.mark.parametrize("item_id", ["x", "a/b c", "ü" * 512])
def test_ids_taken(item_id: str) -> None:
    assert validate_item_id(item_id) == item_id


@pytest.mark.parametrize(("item_id", "problem"), [("", "empty"), ("a\0b", "NUL"), ("ü" * 513, "1026 bytes")])
def test_ids_refused(item_id: str, problem: str) -> None:
    with pytest.raises(IdError, match=problem):
        validate_item_id(item_id)


def test_no_metadata_is_an_empty_object() -> None:
    assert parse_metadata("") == {}


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ("[1]", "object"),
        ("null", "object"),
        ("{", "not JSON"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a":' * 40 + "1" + "}" * 40, "deep"),
        ("[" * 100_000, "not JSON"),
        (r'{"a": "\ud800"}', "surrogates"),
        (r'{"\udfff": 1}', "surrogates"),
        ('{"a": "' + "x" * 2**20 + '"}', "bytes"),
    ],
)
def test_metadata_refused(metadata: str, problem: str) -> None:
    with pytest.raises(MetadataError, match=problem):
        parse_metadata(metadata)


def test_vectors_travel() -> None:
    vector = np.array([1, -2.5, 3e-8], np.float32)
    assert from_bytes(to_bytes(vector), 3).tolist() == vector.tolist()


@pytest.mark.parametrize("float32_le", [b"", b"abc", np.float32("nan").tobytes(), np.float32("inf").tobytes()])
def test_bytes_that_are_no_vector(float32_le: bytes) -> None:
    with pytest.raises(VectorError):
        from_bytes(float32_le)


def test_a_vector_of_another_length() -> None:
    with pytest.raises(DimensionError, match="expected 3 dimensions, got 2"):
        from_bytes(bytes(8), 3)


def test_only_cosine_refuses_length_zero() -> None:
    zero = np.zeros(2, np.float32)
    validate_comparable(zero, Metric.DOT_PRODUCT)
    with pytest.raises(VectorError):
        validate_comparable(zero, Metric.COSINE)


@pytest.mark.parametrize("key", ["", "a", "ключ/😀"])
def test_page_tokens_hold_their_key(key: str) -> None:
    assert decode_page_token(encode_page_token(key)) == key


def test_the_first_page_has_no_key() -> None:
    assert decode_page_token("") is None


@pytest.mark.parametrize("token", ["!", "YQ==", "a", "ÿ"])
def test_foreign_page_tokens(token: str) -> None:
    with pytest.raises(TokenError):
        decode_page_token(token)


@pytest.mark.parametrize(("wanted", "size"), [(0, 100), (1, 1), (1000, 1000)])
def test_page_sizes(wanted: int, size: int) -> None:
    assert validate_page_size(wanted) == size


@pytest.mark.parametrize("wanted", [-1, 1001])
def test_page_sizes_refused(wanted: int) -> None:
    with pytest.raises(ArgumentError):
        validate_page_size(wanted)


def test_version_tokens_are_read_back() -> None:
    assert Version.parse(str(Version("c0ffee", 12))) == Version("c0ffee", 12)


@pytest.mark.parametrize("token", ["", "x", "x.", ".1", "x.-1", "x.1.2", "x.²", "a b.1"])
def test_version_tokens_refused(token: str) -> None:
    with pytest.raises(TokenError):
        Version.parse(token)
