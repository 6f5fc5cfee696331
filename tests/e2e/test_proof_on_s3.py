"""Proof and recovery where rows and media are in a bucket, and backups in another place of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from medley import Client, NewItem
from services.common.s3.bucket import S3Bucket
from services.common.s3.options import S3Options
from tests.e2e.commands import medley
from tests.integration.conversation import picture
from tests.integration.s3_endpoint import fresh_options, store_settings
from tests.integration.suite import Suite, one_process

pytestmark = pytest.mark.s3

SECRET = "a very private sentence nobody else has"


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> S3Options:
    options = fresh_options()
    monkeypatch.setenv("MEDLEY_S3_ENDPOINT", options.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", options.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", options.secret_key)
    return options


@pytest.fixture
def suite(options: S3Options, tmp_path: Path) -> Iterator[Suite]:
    with one_process(tmp_path, **store_settings(options)) as running:
        with Client(running.addresses["gateway"]) as client:
            client.create_collection("shoes")
            items = [NewItem(f"shoe{i}", f"shoe number {i}", picture(i)) for i in range(3)]
            assert all(each.ok for each in client.ingest("shoes", [*items, NewItem("private", SECRET)]))
        yield running


def test_damage_is_named_and_a_collection_comes_back(suite: Suite, options: S3Options) -> None:
    place = f"s3://{options.bucket}/{options.prefix}-backup"
    saved = medley(suite, "backup", "shoes", "--to", place)
    assert saved.code == 0, saved
    assert medley(suite, "fsck", "--all-media").code == 0
    bucket = S3Bucket(options)
    victims = [entry.path for entry in bucket.entries("") if len(entry.path.rpartition("/")[2]) == 64]
    assert len(victims) == 3
    bucket.remove_all(victims[:1])
    damaged = medley(suite, "fsck", "--all-media", "--json")
    assert damaged.code == 1
    assert [each["kind"] for each in damaged.json["findings"]] == ["media_missing"]
    assert medley(suite, "restore", place, "--into-existing").code == 0
    assert medley(suite, "fsck", "--all-media").code == 0
    bucket.close()


def test_media_are_read_by_url_past_the_services(suite: Suite, tmp_path: Path) -> None:
    told = medley(suite, "get", "shoe1", "-c", "shoes", "--url")
    assert told.code == 0, told
    answer = urllib3.request("GET", told.out.strip())
    assert (answer.status, answer.data) == (200, picture(1))
    assert "no media" in medley(suite, "get", "private", "-c", "shoes", "--url").err


def test_nothing_of_an_erased_item_is_left(suite: Suite, options: S3Options) -> None:
    bucket = S3Bucket(options)
    assert holding(bucket)
    erased = medley(suite, "delete", "private", "-c", "shoes", "--receipt")
    assert erased.code == 0, erased
    assert holding(bucket) == []
    bucket.close()


def holding(bucket: S3Bucket) -> list[str]:
    """Return the objects with the private sentence in their bytes."""
    return [
        entry.path
        for entry in bucket.entries("")
        if entry.size_bytes and SECRET.encode() in bucket.get(entry.path, 0, entry.size_bytes).content
    ]
