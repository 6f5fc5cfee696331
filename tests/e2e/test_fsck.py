"""`medley fsck` on a data folder that is damaged for real: it names each damage, and repairs what can be."""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medley import Client, NewItem
from tests.e2e.commands import Answer, medley
from tests.integration.conversation import picture
from tests.integration.suite import Suite, four_processes, one_process

LONG_AGO = time.time() - 7 * 24 * 3600
ITEMS = 6


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[Suite]:
    with one_process(tmp_path) as running:
        fill(running)
        yield running


def fill(suite: Suite) -> None:
    with Client(suite.addresses["gateway"]) as client:
        client.create_collection("shoes")
        items = [NewItem(f"shoe{i}", f"shoe number {i}", picture(i)) for i in range(ITEMS)]
        results = list(client.ingest("shoes", [*items, NewItem("bare", media=picture(99))]))
        assert all(result.ok for result in results)


def object_of(folder: Path, number: int) -> Path:
    sha256 = hashlib.sha256(picture(number)).hexdigest()
    return folder / "media" / sha256[:2] / sha256


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def fsck(suite: Suite, *options: object) -> tuple[Answer, list[dict[str, Any]]]:
    answer = medley(suite, "fsck", "--json", *options)
    return answer, answer.json["findings"]


def told(findings: list[dict[str, Any]]) -> set[tuple[str, str, bool]]:
    return {(each["kind"], each["id"], each["repaired"]) for each in findings}


def test_nothing_wrong_is_clean(suite: Suite) -> None:
    answer = medley(suite, "fsck", "--all-media")
    assert answer.code == 0, answer
    assert "shoes: 7 items, 7 media, 7 of them read, 13 vectors compared" in answer.out
    assert "all is well" in answer.out


def test_each_damage_is_named_and_repaired_as_asked(suite: Suite, tmp_path: Path) -> None:
    object_of(tmp_path, 0).unlink()
    flip_a_byte(object_of(tmp_path, 1))
    object_of(tmp_path, 2).write_bytes(b"short")
    object_of(tmp_path, 99).unlink()
    with Client(suite.addresses["gateway"]) as client:
        lost = client.upload_media(b"nobody's")
        client.upload_media(b"not yet anybody's")
    os.utime(tmp_path / "media" / lost.sha256[:2] / lost.sha256, (LONG_AGO, LONG_AGO))
    damage = {
        ("media_missing", "shoe0"),
        ("media_damaged", "shoe1"),
        ("media_damaged", "shoe2"),
        ("media_missing", "bare"),
        ("media_unreferenced", ""),
    }

    answer, findings = fsck(suite, "--all-media")
    assert answer.code == 1
    assert told(findings) == {(*each, False) for each in damage}
    assert {each["sha256"] for each in findings if not each["id"]} == {lost.sha256}

    answer, findings = fsck(suite, "--all-media", "--repair")
    assert answer.code == 1
    assert told(findings) == {(kind, item, kind == "media_unreferenced") for kind, item in damage}

    answer, findings = fsck(suite, "--all-media", "--repair", "--drop-lost-media")
    assert answer.code == 1
    assert told(findings) == {(kind, item, item != "bare") for kind, item in damage - {("media_unreferenced", "")}}
    (left,) = [each for each in findings if not each["repaired"]]
    assert "nothing would be left" in left["not_repaired_because"]
    assert not object_of(tmp_path, 1).exists()

    assert medley(suite, "delete", "bare", "-c", "shoes").code == 0
    answer, findings = fsck(suite, "--all-media")
    assert (answer.code, findings) == (0, [])
    with Client(suite.addresses["gateway"]) as client:
        item = client.get("shoes", "shoe1")
        assert (item.text, item.media, item.spaces) == ("shoe number 1", None, ("text",))
        (again,) = client.ingest("shoes", [NewItem("shoe1", "shoe number 1", picture(1))])
        assert again.ok
    assert object_of(tmp_path, 1).read_bytes() == picture(1)


def test_lost_rows_are_named(suite: Suite, tmp_path: Path) -> None:
    with Client(suite.addresses["gateway"]) as client:
        client.create_collection("whole")
    (files,) = {path.parent for path in (tmp_path / "rows").glob("*.lance/data/*")}
    for path in files.iterdir():
        path.unlink()
    suite.kill()
    suite.start()
    answer, findings = fsck(suite)
    assert answer.code == 1
    assert told(findings) == {("rows_lost", "", False)}
    assert findings[0]["collection"] == "shoes"


def test_a_sample_of_none_reads_no_media(suite: Suite, tmp_path: Path) -> None:
    flip_a_byte(object_of(tmp_path, 1))
    answer, findings = fsck(suite, "-c", "shoes", "--sample", 0)
    assert (answer.code, findings) == (0, [])
    assert fsck(suite, "-c", "shoes", "--sample", 100)[0].code == 1


def test_lost_media_are_not_dropped_without_repair(suite: Suite) -> None:
    assert medley(suite, "fsck", "--drop-lost-media").code == 2


def test_an_unknown_collection_is_an_error(suite: Suite) -> None:
    answer = medley(suite, "fsck", "-c", "none")
    assert answer.code == 1
    assert "no collection" in answer.err


def test_services_that_are_killed_are_named(tmp_path: Path) -> None:
    with four_processes(tmp_path) as suite:
        fill(suite)
        suite.kill("search")
        answer, findings = fsck(suite)
        assert answer.code == 1
        assert {each["kind"] for each in findings} == {"not_checked"}
        assert "index" in findings[0]["detail"]
        suite.start("search")
        answer, findings = fsck(suite)
        assert (answer.code, findings) == (0, [])
