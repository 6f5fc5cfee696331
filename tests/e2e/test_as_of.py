"""Reading a collection as it was, by version and by tag, from the command line."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medley import Client, NewItem, NotFoundError, PreconditionError
from tests.e2e.commands import medley
from tests.integration.suite import Suite, one_process


@pytest.fixture(params=["lance", "memory"])
def suite(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Suite]:
    with one_process(
        tmp_path, STORE_ROWS=request.param, STORE_VERSIONS_KEPT_SECONDS="0", STORE_OPTIMIZE_SECONDS="0.2"
    ) as s:
        yield s


def listed(suite: Suite, *options: str) -> dict[str, Any]:
    answer = medley(suite, "list", "-c", "notes", "--json", *options)
    assert answer.code == 0, answer
    return {item["id"]: item["text"] for item in answer.json}


def test_a_tagged_version_reads_as_it_was(suite: Suite) -> None:
    with Client(suite.addresses["gateway"]) as client:
        client.create_collection("notes")
        assert all(each.ok for each in client.ingest("notes", [NewItem("a", "one"), NewItem("b", "two")]))
        answer = medley(suite, "tag", "notes", "before", "--json")
        token = answer.json["version"]
        assert answer.json == {"name": "before", "version": client.collection("notes").version}
        assert all(each.ok for each in client.ingest("notes", [NewItem("a", "changed"), NewItem("c", "three")]))
        client.delete("notes", ["b"])
        untagged = client.collection("notes").version

        assert listed(suite) == {"a": "changed", "c": "three"}
        assert listed(suite, "--as-of", "before") == listed(suite, "--as-of", token) == {"a": "one", "b": "two"}
        assert listed(suite, "--as-of", "before", "--limit", "1") == {"a": "one"}
        assert client.get("notes", "b", as_of="before").text == "two"
        assert [lookup.item is None for lookup in client.get_many("notes", ["b", "c"], as_of="before")] == [False, True]
        assert (client.count("notes", as_of="before"), client.count("notes")) == (2, 2)
        assert "as of before, 2 items" in medley(suite, "collections", "show", "notes", "--as-of", "before").out
        assert "one" in medley(suite, "get", "a", "-c", "notes", "--as-of", "before").out
        assert "before" in medley(suite, "tag", "notes").out

        assert medley(suite, "tag", "notes", "before", "--version", token).code == 0
        refused = medley(suite, "tag", "notes", "before")
        assert refused.code == 1
        assert "delete it first" in refused.err
        assert medley(suite, "tag", "notes", "Bad name").code == 1

        assert all(each.ok for each in client.ingest("notes", [NewItem("d", "four")]))
        expired(client, untagged)
        assert client.count("notes", as_of="before") == 2

        assert medley(suite, "tag", "notes", "before", "--delete").code == 0
        with pytest.raises(NotFoundError) as missing:
            client.count("notes", as_of="before")
        assert missing.value.reason == "TAG_NOT_FOUND"
        expired(client, token)
        assert "no longer kept" in medley(suite, "list", "-c", "notes", "--as-of", token).err


def expired(client: Client, version: str) -> None:
    """Wait until the version has expired, and see how reading it is refused."""
    reason, until = "", time.monotonic() + 20
    while not reason and time.monotonic() < until:
        try:
            client.get_many("notes", ["a"], as_of=version)
        except PreconditionError as error:
            reason = error.reason
        time.sleep(0.1)
    assert reason == "VERSION_EXPIRED"


def test_a_version_of_another_life_is_unknown(suite: Suite) -> None:
    with Client(suite.addresses["gateway"]) as client:
        old = client.create_collection("notes").version
        client.drop_collection("notes")
        client.create_collection("notes")
        with pytest.raises(PreconditionError) as unknown:
            client.count("notes", as_of=old)
        assert unknown.value.reason == "VERSION_UNKNOWN"
