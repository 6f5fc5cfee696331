"""`medley delete --receipt`: nothing of an item is left in any file, and the receipt says the truth."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from medley import Client, NewItem
from tests.e2e.commands import medley
from tests.integration.conversation import picture
from tests.integration.suite import Suite, one_process

SECRET, SECRET_ID = "a very private sentence nobody else has", "private-person-4711"
LONG_AGO = time.time() - 3600


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[Suite]:
    with one_process(tmp_path) as running:
        yield running


@pytest.fixture
def client(suite: Suite, tmp_path: Path) -> Iterator[Client]:
    with Client(suite.addresses["gateway"]) as client:
        client.create_collection("people")
        client.create_collection("others")
        items = [NewItem(f"p{i}", f"person number {i}", picture(i)) for i in range(5)]
        private = NewItem(SECRET_ID, SECRET, picture(99), {"mail": "private@example.org"})
        assert all(each.ok for each in client.ingest("people", [*items, private]))
        client.update("people", SECRET_ID, merge={"seen": 1})
        for path in (tmp_path / "media").rglob("*"):  # as if it were stored a while ago
            if path.is_file() and len(path.name) == 64:
                os.utime(path, (LONG_AGO, LONG_AGO))
        yield client


def object_of(folder: Path, number: int) -> Path:
    sha256 = hashlib.sha256(picture(number)).hexdigest()
    return folder / "media" / sha256[:2] / sha256


def holding(folder: Path, *needles: bytes) -> set[Path]:
    """Return the files with any of `needles` in their bytes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path for path in files if any(needle in path.read_bytes() for needle in needles)}


def test_nothing_is_left(suite: Suite, client: Client, tmp_path: Path) -> None:
    needles = (SECRET.encode(), SECRET_ID.encode(), b"private@example.org")
    for needle in needles:
        assert holding(tmp_path / "rows", needle), needle
    answer = medley(suite, "delete", SECRET_ID, "-c", "people", "--receipt-file", tmp_path / "receipt.json", "--json")
    assert answer.code == 0, answer
    (receipt,) = answer.json
    assert json.loads((tmp_path / "receipt.json").read_text()) == [receipt]
    assert (receipt["id"], receipt["existed"], receipt["complete"]) == (SECRET_ID, True, True)
    assert receipt["sha256"] == hashlib.sha256(picture(99)).hexdigest()
    assert [check["what"] for check in receipt["checks"]] == [
        "row",
        "older versions",
        "media",
        "thumbnails",
        "index clip",
        "index text",
        "snapshots",
    ]
    (tmp_path / "receipt.json").unlink()
    assert holding(tmp_path, *needles, picture(99)) == set()
    assert not object_of(tmp_path, 99).exists()
    assert client.count("people") == 5
    assert SECRET_ID not in {hit.id for hit in client.search("people", text=SECRET)}
    assert medley(suite, "fsck", "--all-media").code == 0
    assert all(each.ok for each in client.ingest("people", [NewItem(SECRET_ID, "again", picture(99))]))
    assert client.search("people", text="again", space="text").hits[0].id == SECRET_ID


def test_media_that_others_have_stay(suite: Suite, client: Client, tmp_path: Path) -> None:
    assert all(each.ok for each in client.ingest("others", [NewItem("twin", media=picture(99))]))
    answer = medley(suite, "delete", SECRET_ID, "-c", "people", "--receipt")
    assert answer.code == 1
    (receipt,) = answer.json
    (left,) = [check for check in receipt["checks"] if not check["gone"]]
    assert left["what"] == "media"
    assert "collections/others/items/twin" in left["detail"]
    assert object_of(tmp_path, 99).exists()


def test_a_tag_that_holds_it_is_told(suite: Suite, client: Client, tmp_path: Path) -> None:
    client.tag("people", "before")
    answer = medley(suite, "delete", SECRET_ID, "-c", "people", "--receipt")
    assert answer.code == 1
    (receipt,) = answer.json
    assert {check["what"] for check in receipt["checks"] if not check["gone"]} == {"older versions", "media"}
    assert client.get("people", SECRET_ID, as_of="before").text == SECRET
    client.delete_tag("people", "before")
    answer = medley(suite, "delete", SECRET_ID, "-c", "people", "--receipt")
    assert answer.code == 1
    assert {check["what"] for check in answer.json[0]["checks"] if not check["gone"]} == {"media"}
    assert object_of(tmp_path, 99).exists()
    answer = medley(suite, "delete", SECRET_ID, "-c", "people", "--receipt", "--media", receipt["sha256"])
    assert answer.code == 0, answer
    assert (answer.json[0]["existed"], answer.json[0]["complete"]) == (False, True)
    assert not object_of(tmp_path, 99).exists()
    assert holding(tmp_path / "rows", SECRET.encode()) == set()


def test_a_receipt_is_for_ids(suite: Suite) -> None:
    assert medley(suite, "delete", "-c", "people", "--where", "{}", "--receipt").code == 2
