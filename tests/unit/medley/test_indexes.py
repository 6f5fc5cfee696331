"""Indexes as callers choose them: to messages and back, to JSON and back, and as they are typed and told."""

import json
from dataclasses import asdict
from pathlib import Path

import click
import pytest

from medley import Collection, ExactIndex, HnswIndex, IndexRecall, IndexStatus, IvfIndex, Space
from medley._transport import decode, encode
from medley.backup import format as backup_format
from medley.backup.destination import FolderDestination
from medley.cli.commands.status import print_indexes
from medley.cli.indexing import format_index, parse_index_option
from medley.indexes import IndexConfig, index_config
from medley.manifest import decode_manifest, encode_manifest
from medley.v1 import index_config_pb2 as pb
from medley.v1 import search_service_pb2
from services.common import index_config_codec
from services.common.index_config import Hnsw, Ivf, ProductQuantization, VectorStorage
from services.common.index_config import IndexConfig as ServerConfig

CHOICES: list[IndexConfig] = [
    ExactIndex("float32"),
    HnswIndex(48, 300, 200, "float32", 0.25, 0.95),
    IvfIndex(256, 16, "int8", 0, 0.25, 0.95),
    IvfIndex(product_bytes=8, exact_below_selectivity=0.25, recall_floor=0.95),
]


@pytest.mark.parametrize("index", CHOICES)
def test_what_is_sent_is_read_back(index: IndexConfig) -> None:
    space = encode.collection("c", [Space("s", index=index)]).spaces[0]
    message = decode.collection(encode.collection("c", [Space("s", index=index)])).spaces[0]
    assert space.HasField("index")
    assert message.index == index


def test_what_is_left_out_is_the_servers_choice() -> None:
    assert not encode.collection("c", [Space("s")]).spaces[0].HasField("index")
    assert index_config_codec.from_message(encode.index(ExactIndex())) == ServerConfig()
    assert index_config_codec.from_message(encode.index(HnswIndex(m=48))) == ServerConfig(Hnsw(m=48))
    assert index_config_codec.from_message(encode.index(IvfIndex())) == ServerConfig(Ivf())
    coded = index_config_codec.from_message(encode.index(IvfIndex(nlist=9, product_bytes=4)))
    assert coded.kind == Ivf(nlist=9, coding=ProductQuantization(4))
    stored = index_config_codec.from_message(encode.index(HnswIndex(storage="float32")))
    assert stored.kind == Hnsw(storage=VectorStorage.FLOAT32)


def test_an_index_of_a_kind_unknown_to_this_client_is_none() -> None:
    space = encode.collection("c", [Space("s")]).spaces[0]
    space.index.SetInParent()
    assert decode.collection(encode.collection("c", [Space("s")])).spaces[0].index is None


def test_what_cannot_be_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="storage or product_bytes"):
        IvfIndex(storage="int8", product_bytes=8)
    with pytest.raises(ValueError, match="'tree'; there are exact, hnsw, ivf"):
        index_config("tree")
    with pytest.raises(ValueError, match="an hnsw index has no nlist; it has m, "):
        index_config("hnsw", nlist=3)
    with pytest.raises(ValueError, match="unknown vector storage"):
        encode.index(ExactIndex("float64"))  # type: ignore[arg-type]  # what is wrong about it


@pytest.mark.parametrize("index", CHOICES)
def test_json_says_the_kind_and_reads_back(index: IndexConfig) -> None:
    fields = json.loads(json.dumps(asdict(index)))
    assert fields["kind"] in ("exact", "hnsw", "ivf")
    assert index_config(**fields) == index


def test_a_state_is_read_whole() -> None:
    message = search_service_pb2.Index(
        collection="collections/c",
        space="s",
        engine="faiss-hnsw",
        vectors=7,
        memory_bytes=8,
        version="u.3",
        config=pb.IndexConfig(hnsw=pb.HnswIndex(m=32)),
        state=search_service_pb2.INDEX_STATE_DEGRADED,
        note="recall 0.5",
        recall=[search_service_pb2.IndexRecall(share_above=0.5, share_up_to=1, recall=0.5, queries=9)],
        lag_seconds=1.5,
    )
    assert decode._index(message) == IndexStatus(
        "c",
        "s",
        "faiss-hnsw",
        7,
        8,
        "u.3",
        HnswIndex(32),
        "degraded",
        "recall 0.5",
        (IndexRecall(0.5, 1, 0.5, 9),),
        1.5,
    )


def test_indexes_are_typed_by_space() -> None:
    assert parse_index_option("clip=hnsw") == ("clip", HnswIndex())
    assert parse_index_option("own=ivf,nlist=256,storage=float16,recall-floor=0.95") == (
        "own",
        IvfIndex(nlist=256, storage="float16", recall_floor=0.95),
    )
    assert format_index(IvfIndex(nlist=256, storage="float16")) == "ivf nlist=256 storage=float16"
    for wrong in ("clip", "=hnsw", "clip=", "clip=tree", "clip=hnsw,nlist=3", "clip=hnsw,neighbours", "c=ivf,nlist=x"):
        with pytest.raises(click.UsageError):
            parse_index_option(wrong)


def test_states_fit_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    recall = (IndexRecall(0.0, 0.2, 0.91234, 3), IndexRecall(0.5, 1, 0.98, 7), IndexRecall(1, 1, 0.99, 120))
    long = "a-collection-with-a-long-name"
    note = "recall 0.5 is below 0.9: compared exactly"
    degraded = IndexStatus(
        long, "clip", "faiss-hnsw-int8", 10**7, 2**34, "u.3", None, "degraded", note, recall, lag_seconds=12.25
    )
    print_indexes([degraded, IndexStatus("short", "text", "faiss-exact", 1, 100, "u.1", None, "ready")])
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    for told in ("16384.0 MiB", "degraded", "12.2 s", "0% to 20%", "0.912", "50% to 100%", "all", "0.990", "120"):
        assert told in out
    assert "a-collection-with-a-long-name/clip: recall 0.5 is below 0.9: compared exactly\n" in out


def test_a_backup_says_how_spaces_are_indexed(tmp_path: Path) -> None:
    spaces = (
        Space("plain", dimensions=2),
        *(Space(f"s{i}", dimensions=8, index=each) for i, each in enumerate(CHOICES)),
    )
    destination = FolderDestination(tmp_path)
    written = backup_format.write_manifest(
        destination, Collection("c", spaces, "u.1", None), backup_format.Progress("c", "u.1", ""), {}
    )
    assert backup_format.read_manifest(destination) == written
    assert written.spaces == spaces


def test_a_backup_from_before_there_was_a_choice_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    destination = FolderDestination(tmp_path)
    collection = Collection("c", (Space("own", dimensions=2),), "u.1", None)
    backup_format.write_manifest(destination, collection, backup_format.Progress("c", "u.1", ""), {})
    fields = decode_manifest(b"".join(destination.read(backup_format.MANIFEST)), backup_format.READABLE)
    del fields["spaces"][0]["index"]
    destination.write(backup_format.MANIFEST, [encode_manifest(fields, 1)])
    read_back = backup_format.read_manifest(destination)
    assert read_back is not None
    assert read_back.spaces == collection.spaces
