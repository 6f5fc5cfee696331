"""A collection saved and restored from the command line: the same items, the same answers; damage is refused."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medley import Client, Item, NewItem, PreconditionError, Space
from tests.e2e.commands import medley, started
from tests.integration.conversation import picture
from tests.integration.suite import ROOT, Suite, one_process
from tests.integration.tcp_proxy import TcpProxy

FIELDS: Any = ("text", "metadata", "media", "vectors")


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[Suite]:
    with one_process(tmp_path / "data", STORE_OPTIMIZE_SECONDS="0.2", STORE_VERSIONS_KEPT_SECONDS="0") as running:
        yield running


@pytest.fixture
def client(suite: Suite) -> Iterator[Client]:
    with Client(suite.addresses["gateway"]) as client:
        yield client


@pytest.fixture
def proxy(suite: Suite) -> Iterator[TcpProxy]:
    """The way to the gateway of a command that is to be killed in the middle."""
    with TcpProxy(int(suite.addresses["gateway"].rpartition(":")[2])) as proxy:
        yield proxy


@pytest.fixture
def many(client: Client) -> str:
    """A collection that goes over the wire in about a megabyte."""
    client.create_collection("many", [Space("own", dimensions=2, metric="euclidean")])
    items = [
        NewItem(
            f"i{i:05}",
            f"text {i}",
            picture(i, (8, 8)) if i % 20 == 0 else None,
            {"filling": "." * 200},
            {"own": [i, 1]},
        )
        for i in range(3000)
    ]
    assert all(each.ok for each in client.ingest("many", items))
    return "many"


@pytest.fixture
def shoes(client: Client) -> str:
    spaces = [Space("clip", "medley-mini"), Space("text", "minilm"), Space("own", dimensions=2, metric="euclidean")]
    client.create_collection("shoes", spaces)
    items = [
        NewItem(f"shoe{i}", f"shoe number {i}", picture(i % 5), {"number": i, "name": "Schuh ü"}, {"own": [i, 1]})
        for i in range(12)
    ]
    items += [
        NewItem("bare", vectors={"own": [9, 9]}),
        NewItem("text", "only a text"),
        NewItem("pic", None, picture(7)),
    ]
    assert all(each.ok for each in client.ingest("shoes", items))
    client.update("shoes", "shoe1", merge={"number": 100})
    return "shoes"


def told(item: Item) -> tuple[Any, ...]:
    vectors = {name: vector.tobytes() for name, vector in item.vectors.items()}
    history = (item.revision, item.create_time, item.update_time)
    return item.id, item.content_type, item.text, item.media, item.metadata, vectors, set(item.spaces), history


def everything(client: Client, name: str) -> list[tuple[Any, ...]]:
    return [told(item) for item in client.list(name, fields=FIELDS)]


def answers(client: Client, name: str) -> list[Any]:
    queries: list[dict[str, Any]] = [{"text": "a shoe"}, {"image": picture(3)}, {"vector": [3, 1], "space": "own"}]
    return [[(hit.id, hit.score) for hit in client.search(name, **query)] for query in queries]


def test_what_was_saved_is_restored(suite: Suite, client: Client, shoes: str, tmp_path: Path) -> None:
    items, found = everything(client, shoes), answers(client, shoes)
    saved = medley(suite, "backup", shoes, "--to", tmp_path / "saved")
    assert saved.code == 0, saved
    assert "15 items, 6 media" in saved.out
    assert client.tags(shoes) == ()
    client.drop_collection(shoes)
    restored = medley(suite, "restore", tmp_path / "saved")
    assert restored.code == 0, restored
    assert everything(client, shoes) == items
    assert answers(client, shoes) == found
    assert b"".join(client.download_media(client.get(shoes, "pic").media.sha256)) == picture(7)  # type: ignore[union-attr]
    assert medley(suite, "fsck", "--all-media").code == 0

    again = medley(suite, "restore", tmp_path / "saved")
    assert again.code == 1
    assert "has 15 items" in again.err
    assert medley(suite, "restore", tmp_path / "saved", "--as", "twin").code == 0
    assert [each[:7] for each in everything(client, "twin")] == [each[:7] for each in items]
    assert medley(suite, "restore", tmp_path / "saved", "--into-existing").code == 0
    assert client.count(shoes) == 15
    assert "complete backup already" in medley(suite, "backup", shoes, "--to", tmp_path / "saved").err


def test_a_version_is_saved_as_it_was(suite: Suite, client: Client, shoes: str, tmp_path: Path) -> None:
    client.tag(shoes, "before")
    items = everything(client, shoes)
    client.delete(shoes, where={"number": {"$lt": 10}})
    assert medley(suite, "backup", shoes, "--to", tmp_path / "saved", "--version", "before").code == 0
    assert medley(suite, "restore", tmp_path / "saved", "--as", "old").code == 0
    assert everything(client, "old") == items


@pytest.mark.parametrize("path", ["items/000000.parquet", "media", "manifest.json"])
def test_a_tampered_backup_is_refused(suite: Suite, client: Client, shoes: str, tmp_path: Path, path: str) -> None:
    assert medley(suite, "backup", shoes, "--to", tmp_path / "saved").code == 0
    victim = tmp_path / "saved" / path
    if victim.is_dir():
        victim = sorted(each for each in victim.rglob("*") if each.is_file())[0]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    refused = medley(suite, "restore", tmp_path / "saved", "--as", "copy")
    assert refused.code == 1
    assert "not as it was written" in refused.err
    assert "copy" not in {each.name for each in client.collections()}
    victim.unlink()
    refused = medley(suite, "restore", tmp_path / "saved", "--as", "copy")
    assert refused.code == 1
    assert "missing from the backup" in refused.err or "no complete backup" in refused.err
    assert "copy" not in {each.name for each in client.collections()}


def test_a_killed_backup_goes_on_with_its_version(
    suite: Suite, client: Client, proxy: TcpProxy, many: str, tmp_path: Path
) -> None:
    before = everything(client, many)
    place = tmp_path / "saved"
    proxy.to_client.stop_after(2**19)
    with started("backup", many, "--to", place, cwd=ROOT, server=proxy.address) as process:
        while process.poll() is None and not (place / "items" / "000001.parquet").exists():
            time.sleep(0.01)
        process.kill()
    assert not (place / "manifest.json").exists()
    assert "no complete backup" in medley(suite, "restore", place, "--as", "copy").err
    assert len(client.tags("many")) == 1
    done = {path: path.stat().st_mtime_ns for path in place.rglob("*.parquet")}

    (later,) = client.ingest("many", [NewItem("later", "after the kill")])
    client.delete("many", ["i00000"])
    _wait_until_expired(client, "many", later.version)
    resumed = medley(suite, "backup", "many", "--to", place, "--json")
    assert (resumed.code, resumed.json["resumed"], resumed.json["items"]) == (0, True, 3000)
    whole = json.loads((place / "manifest.json").read_text().rpartition("\n}")[0] + "\n}")["files"]
    kept = [path for path, written in done.items() if path.stat().st_mtime_ns == written]
    assert len(kept) >= 1
    assert len(whole) == 6
    assert client.tags("many") == ()
    assert medley(suite, "restore", place, "--as", "copy").code == 0
    assert everything(client, "copy") == before


def test_vectors_of_another_model_are_made_anew_only_on_request(
    suite: Suite, client: Client, shoes: str, tmp_path: Path
) -> None:
    from medley.backup import format as backup_format
    from medley.backup import open_destination

    place = tmp_path / "saved"
    assert medley(suite, "backup", shoes, "--to", place).code == 0
    destination = open_destination(str(place))
    manifest = backup_format.read_manifest(destination)
    assert manifest is not None
    definition = client.collection(shoes)
    foreign = tuple(
        Space(space.name, space.model, space.dimensions, space.metric, space.sources, "another" if space.model else "")
        for space in definition.spaces
    )
    changed = type(definition)(definition.name, foreign, definition.version, None)
    progress = backup_format.Progress(manifest.collection, manifest.version, "", list(manifest.files))
    backup_format.write_manifest(destination, changed, progress, manifest.media)

    refused = medley(suite, "restore", place, "--as", "copy")
    assert refused.code == 1
    assert "--re-embed" in refused.err
    assert "copy" not in {each.name for each in client.collections()}
    assert medley(suite, "restore", place, "--as", "copy", "--re-embed").code == 0
    for old, new in zip(client.list(shoes, fields=FIELDS), client.list("copy", fields=FIELDS), strict=True):
        assert (old.id, old.text, old.metadata, set(old.spaces)) == (new.id, new.text, new.metadata, set(new.spaces))
        assert all(np.allclose(vector, new.vectors[name], atol=1e-5) for name, vector in old.vectors.items())


def _wait_until_expired(client: Client, name: str, version: str) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            client.get_many(name, ["later"], as_of=version)
        except PreconditionError:
            return
        time.sleep(0.1)
    raise AssertionError(f"{version} is still kept")


def test_a_killed_restore_goes_on(suite: Suite, client: Client, proxy: TcpProxy, many: str, tmp_path: Path) -> None:
    place = tmp_path / "saved"
    assert medley(suite, "backup", many, "--to", place).code == 0
    proxy.to_server.stop_after(2**19)
    with started("restore", place, "--as", "copy", cwd=ROOT, server=proxy.address) as process:
        while process.poll() is None and not restored(client):
            time.sleep(0.01)
        process.kill()
    assert 0 < restored(client) < 3000
    refused = medley(suite, "restore", place, "--as", "copy")
    assert refused.code == 1
    assert "--into-existing" in refused.err
    assert medley(suite, "restore", place, "--as", "copy", "--into-existing").code == 0
    assert [each[:7] for each in everything(client, "copy")] == [each[:7] for each in everything(client, "many")]


def restored(client: Client) -> int:
    return client.count("copy") if "copy" in {each.name for each in client.collections()} else 0
