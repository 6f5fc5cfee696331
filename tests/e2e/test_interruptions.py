"""Ingests that are cut short, on either side."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medley import Client
from medley._transport.flow_control import MAX_ITEMS
from tests.e2e.commands import Medley, ended, started
from tests.integration.suite import Suite, one_process
from tests.integration.tcp_proxy import TcpProxy

ROWS = 3 * MAX_ITEMS
ROW_BYTES = 200


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[Suite]:
    """A suite of its own, to be killed."""
    with one_process(tmp_path / "data") as running:
        yield running


@pytest.fixture
def proxy(suite: Suite) -> Iterator[TcpProxy]:
    """The way to the gateway of an ingest that is to be cut short."""
    with TcpProxy(int(suite.addresses["gateway"].rpartition(":")[2])) as proxy:
        yield proxy


@pytest.fixture
def medley(suite: Suite, tmp_path: Path) -> Medley:
    rows = [
        {"id": f"{number:05}", "text": f"Sentence {number}.", "number": number, "filling": "." * ROW_BYTES}
        for number in range(ROWS)
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "few.jsonl").write_text("\n".join(map(json.dumps, rows[:200])))
    medley = Medley(suite.addresses["gateway"], tmp_path)
    # Its texts are in no space, so they are only stored: how long embedding takes is nothing to these tests.
    assert medley("collections", "create", "cut", "--space", "own=2").code == 0
    return medley


@contextmanager
def ingesting(medley: Medley, proxy: TcpProxy, *options: object) -> Iterator[subprocess.Popen[str]]:
    """Run an ingest of which a part is answered, and the end does not reach the server until `proxy` passes it on."""
    proxy.to_server.stop_after(2 * ROWS * ROW_BYTES // 3)
    arguments = ("ingest", "m.jsonl", "-c", "cut", "--json", *options)
    with started(*arguments, cwd=medley.folder, server=proxy.address) as process:
        with Client(medley.server) as client:
            # No more than MAX_ITEMS are under way: once more are stored, some have been answered.
            while process.poll() is None and not client.count("cut") > MAX_ITEMS:
                time.sleep(0.02)
        assert process.poll() is None
        yield process


def stored_numbers(medley: Medley) -> list[object]:
    with Client(medley.server) as client:
        return [(item.metadata or {})["number"] for item in client.list("cut", page_size=1000)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_ingest_that_is_killed_goes_on_where_it_was(medley: Medley, proxy: TcpProxy, number: signal.Signals) -> None:
    with ingesting(medley, proxy) as process:
        os.killpg(process.pid, number)
        answer = ended(process)
    assert answer.code == (130 if number is signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in answer.err
    before = len(stored_numbers(medley))
    assert 0 < before < ROWS
    report = medley.json("ingest", "m.jsonl", "-c", "cut")
    assert report["unchanged"] >= before
    assert report["ingested"] + report["unchanged"] == ROWS
    assert stored_numbers(medley) == list(range(ROWS))


def test_an_ingest_outlives_a_server_that_is_killed_and_comes_back(
    suite: Suite, medley: Medley, proxy: TcpProxy
) -> None:
    with ingesting(medley, proxy) as process:
        suite.kill()
        assert process.stderr is not None
        assert "waiting for the server" in process.stderr.readline()
        suite.start()
        proxy.pass_on()
        answer = ended(process)
    assert answer.code == 0, answer.err
    assert (answer.json["ingested"] + answer.json["unchanged"], answer.json["failed"]) == (ROWS, [])
    assert stored_numbers(medley) == list(range(ROWS))


def test_an_ingest_whose_server_stays_away_says_what_it_did(suite: Suite, medley: Medley, proxy: TcpProxy) -> None:
    with ingesting(medley, proxy, "--idle-timeout", 2) as process:
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
    medley.json("ingest", "few.jsonl", "-c", "few", "--create")
    medley.json("delete", "-c", "few", "--where", '{"number": {"$lt": 100}}', "--yes")
    assert medley.json("ingest", "few.jsonl", "-c", "few")["ingested"] == 100
    medley.json("collections", "drop", "few", "--yes")
    assert medley.json("ingest", "few.jsonl", "-c", "few", "--create")["ingested"] == 200
