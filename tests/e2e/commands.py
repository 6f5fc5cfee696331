"""The command line as a user runs it: in processes of its own."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.suite import ROOT, Suite

COMMAND_SECONDS = 90
OWN = ("MEDLEY_SERVER", "MEDLEY_CA", "MEDLEY_TOKEN")  # the settings of whoever runs the tests


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment() -> dict[str, str]:
    """Return the environment that commands run in."""
    kept = {key: value for key, value in os.environ.items() if key not in OWN}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def started(*arguments: object, cwd: Path, server: str = "") -> subprocess.Popen[str]:
    """Start a command and leave it running."""
    server_named = {"MEDLEY_SERVER": server} if server else {}
    command = [sys.executable, "-m", "medley", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment() | server_named, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(*arguments: object, cwd: Path, server: str = "") -> Answer:
    """Run a command to its end."""
    return ended(started(*arguments, cwd=cwd, server=server))


def medley(suite: Suite, *arguments: object) -> Answer:
    """Run a command against the gateway of `suite` to its end."""
    return run(*arguments, cwd=ROOT, server=suite.addresses["gateway"])


def ended(process: subprocess.Popen[str]) -> Answer:
    """Wait for a command to end."""
    try:
        out, err = process.communicate(timeout=COMMAND_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Answer(process.returncode, out, err)


@dataclass(frozen=True)
class Medley:
    """Commands against one server, in one folder."""

    server: str
    folder: Path

    def __call__(self, *arguments: object) -> Answer:
        return run(*arguments, cwd=self.folder, server=self.server)

    def json(self, *arguments: object) -> Any:
        """Return the JSON answer of a command that must succeed."""
        answer = self(*arguments, "--json")
        assert answer.code == 0, answer.err
        return answer.json


@contextmanager
def up(folder: Path) -> Iterator[str]:
    """Run `medley up` while the block runs; yield the address it says."""
    process = started("up", "--data", folder / "data", "--port-base", free_port_base(), cwd=folder)
    try:
        yield _said_address(process)
    finally:
        process.terminate()
        answer = ended(process)
        assert answer.code == 0, answer.err


def free_port_base() -> int:
    """Return the first of four neighbouring ports that are free."""
    for base in range(20000 + os.getpid() % 10000, 60000, 4):
        if all(_free(base + offset) for offset in range(4)):
            return base
    raise AssertionError("no four neighbouring ports are free")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _said_address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("medley is up on "):
            return line.split()[4].rstrip(",")
    raise AssertionError(f"medley up ended: {ended(process).err}")
