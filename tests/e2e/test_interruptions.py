"""Ingests that are cut short, on either side."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from medley import Client
from tests.e2e.commands import Medley, ended, started
from tests.integration.suite import Suite, one_process

pytestmark = pytest.mark.timeout(180)
ROWS = 3000


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[Suite]:
    """A suite of its own, to be killed."""
    with one_process(tmp_path / "data") as running:
        yield running


@pytest.fixture
def medley(suite: Suite, tmp_path: Path) -> Medley:
    manifest = tmp_path / "m.jsonl"
    rows = ({"id": f"{number:05}", "text": f"Sentence {number} of many.", "number": number} for number in range(ROWS))
    manifest.write_text("\n".join(map(json.dumps, rows)))
    return Medley(suite.addresses["gateway"], tmp_path)


def ingesting(medley: Medley, *options: object) -> subprocess.Popen[str]:
    """Start an ingest, and wait until some of it is stored and much is not."""
    assert medley("collections", "create", "cut").code == 0
    process = started("ingest", "m.jsonl", "-c", "cut", "--json", *options, cwd=medley.folder, server=medley.server)
    with Client(medley.server) as client:
        while process.poll() is None and not client.count("cut") > 0:
            time.sleep(0.02)
    assert process.poll() is None
    return process


def stored_numbers(medley: Medley) -> list[object]:
    with Client(medley.server) as client:
        return [(item.metadata or {})["number"] for item in client.list("cut", page_size=1000)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_ingest_that_is_killed_goes_on_where_it_was(medley: Medley, number: signal.Signals) -> None:
    process = ingesting(medley)
    process.send_signal(number)
    answer = ended(process)
    assert answer.code in (-signal.SIGKILL, 130)
    assert "Traceback" not in answer.err
    before = len(stored_numbers(medley))
    assert 0 < before < ROWS
    report = medley.json("ingest", "m.jsonl", "-c", "cut")
    assert report["unchanged"] >= before
    assert report["ingested"] + report["unchanged"] == ROWS
    assert stored_numbers(medley) == list(range(ROWS))


def test_an_ingest_outlives_a_server_that_is_killed_and_comes_back(suite: Suite, medley: Medley) -> None:
    process = ingesting(medley)
    suite.kill()
    time.sleep(1)
    suite.start()
    answer = ended(process)
    assert answer.code == 0, answer.err
    assert (answer.json["ingested"] + answer.json["unchanged"], answer.json["failed"]) == (ROWS, [])
    assert "waiting for the server" in answer.err
    assert stored_numbers(medley) == list(range(ROWS))


def test_an_ingest_whose_server_stays_away_says_what_it_did(suite: Suite, medley: Medley) -> None:
    process = ingesting(medley, "--idle-timeout", 2)
    suite.kill()
    answer = ended(process)
    assert answer.code == 1
    assert 0 < answer.json["ingested"] < ROWS
    assert "no progress in 2 seconds" in answer.json["stopped"]
    suite.start()
    report = medley.json("ingest", "m.jsonl", "-c", "cut")
    assert report["unchanged"] >= answer.json["ingested"]
    assert stored_numbers(medley) == list(range(ROWS))


def test_what_was_deleted_meanwhile_is_brought_back(medley: Medley) -> None:
    medley.json("ingest", "m.jsonl", "-c", "cut", "--create")
    medley.json("delete", "-c", "cut", "--where", '{"number": {"$lt": 100}}', "--yes")
    assert medley.json("ingest", "m.jsonl", "-c", "cut")["ingested"] == 100
    medley.json("collections", "drop", "cut", "--yes")
    assert medley.json("ingest", "m.jsonl", "-c", "cut", "--create")["ingested"] == ROWS
