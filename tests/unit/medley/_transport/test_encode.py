import json
from pathlib import Path

import numpy as np
import pytest

from medley import Arm, Media, NewItem, Space
from medley._transport import encode
from medley.v1 import collection_pb2, vector_pb2
from medley.values import VectorLike


def test_a_short_name_stands_for_the_full_one() -> None:
    assert encode.collection_name("photos") == encode.collection_name("collections/photos") == "collections/photos"


def test_a_filter_goes_in_its_json_spelling() -> None:
    condition = {"colour": "grün", "price": {"$lt": 50}}
    message = encode.where(condition)
    assert message is not None
    assert json.loads(message.json) == condition


def test_a_filter_given_as_text_is_left_to_the_server() -> None:
    message = encode.where("{not json")
    assert message is not None
    assert message.json == "{not json"


def test_no_filter_is_none() -> None:
    assert encode.where(None) is None


def test_an_empty_filter_is_a_filter() -> None:
    message = encode.where({})
    assert message is not None
    assert message.json == "{}"


@pytest.mark.parametrize("components", [[1.0, -2.5], (1, -2.5), np.array([1.0, -2.5]), np.array([1, -2.5], ">f4")])
def test_vectors_travel_as_little_endian_float32(components: VectorLike) -> None:
    assert encode.vector(components).float32_le == np.array([1.0, -2.5], "<f4").tobytes()


def test_an_unknown_field_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'picture'.*text, metadata, media, media_data, vectors"):
        encode.fields(["picture"])  # type: ignore[list-item]


def test_media_come_from_bytes_a_path_or_a_reference(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    sources = [encode.media(source) for source in (b"abc", tmp_path / "a", str(tmp_path / "a"), Media("f" * 64))]
    assert [source and (source.data, source.sha256) for source in sources] == [(b"abc", "")] * 3 + [(b"", "f" * 64)]


def test_each_convenient_query_becomes_an_arm_with_its_weight() -> None:
    spelt_out = [Arm(item="x", space="clip", weight=3)]
    arms = encode.arms("sea", b"jpeg", None, None, spelt_out, space="", weights={"image": 0.5})
    assert [(arm.WhichOneof("query"), arm.space, arm.weight) for arm in arms] == [
        ("text", "", 1),
        ("image", "", 0.5),
        ("item_id", "clip", 3),
    ]


def test_the_space_is_for_the_convenient_queries() -> None:
    (arm,) = encode.arms(None, None, None, [1.0], (), space="own", weights={})
    assert (arm.space, arm.vector.float32_le) == ("own", np.array([1.0], "<f4").tobytes())


def test_a_weight_of_no_query_is_refused() -> None:
    with pytest.raises(ValueError, match="a weight for image, but the queries are text"):
        encode.arms("sea", None, None, None, (), space="", weights={"image": 2})


@pytest.mark.parametrize("queries", [{}, {"text": "sea", "item": "x"}])
def test_an_arm_has_one_query(queries: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="one of text, image, item and vector"):
        Arm(**queries)  # type: ignore[arg-type]


def test_an_empty_text_is_a_query_for_the_server_to_judge() -> None:
    (arm,) = encode.arms("", None, None, None, (), space="", weights={})
    assert arm.WhichOneof("query") == "text"


def test_an_item_keeps_apart_no_text_and_empty_text() -> None:
    assert not encode.ingest_item(NewItem("a", vectors={"own": [1]})).HasField("text")
    assert encode.ingest_item(NewItem("a", text="")).HasField("text")


def test_metadata_keep_their_letters_and_refuse_nan() -> None:
    assert encode.ingest_item(NewItem("a", "t", metadata={"straße": "☂"})).metadata_json == '{"straße":"☂"}'
    with pytest.raises(ValueError, match="JSON"):
        encode.ingest_item(NewItem("a", "t", metadata={"price": float("nan")}))


def test_metadata_are_replaced_or_merged() -> None:
    assert encode.metadata_update({"a": 1}, None).replace_json == '{"a":1}'
    assert encode.metadata_update(None, {"a": None}).merge_json == '{"a":null}'
    assert encode.metadata_update({}, None).replace_json == "{}"
    assert encode.metadata_update(None, None) is None
    with pytest.raises(ValueError, match="not both"):
        encode.metadata_update({}, {})


def test_a_space_leaves_to_the_server_what_is_left_out() -> None:
    message = encode.collection(
        "c", [Space("text"), Space("own", dimensions=3, metric="dot_product", sources=("image",))]
    )
    bare, full = message.spaces
    assert (bare.metric, list(bare.sources)) == (vector_pb2.METRIC_UNSPECIFIED, [])
    assert (full.metric, list(full.sources)) == (vector_pb2.METRIC_DOT_PRODUCT, [collection_pb2.CONTENT_TYPE_IMAGE])


def test_uploads_go_in_chunks_under_the_limit() -> None:
    block = bytes(range(256)) * 4096
    chunks = [message.chunk for message in encode.upload_chunks(block)]
    assert b"".join(chunks) == block
    assert all(len(chunk) <= encode.CHUNK_BYTES for chunk in chunks)


def test_an_upload_announces_the_size_it_knows(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    sizes = [encode.upload_header(source, "").header.size_bytes for source in (b"ab", tmp_path / "a", iter([b"x"]))]
    assert sizes == [2, 3, 0]


def test_the_blocks_of_bytes_a_file_and_an_iterable_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert [b"".join(encode.blocks(s)) for s in (b"abc", tmp_path / "a", [b"a", b"bc"])] == [b"abc"] * 3
