"""The command line as a user runs it: in processes of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.suite import ROOT, Suite
from tests.ports import reserve_ports
from tests.waiting import HANG_SECONDS

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


@contextmanager
def started(
    *arguments: object, cwd: Path, server: str = "", interrupts: signal.Handlers = signal.SIG_DFL
) -> Iterator[subprocess.Popen[str]]:
    """Run a command while the block runs, as a terminal does: in a process group, which ends with the block.

    `interrupts` is what the command finds at its start for SIGINT: SIG_IGN is what a script's `command &` gives it.
    """
    server_named = {"MEDLEY_SERVER": server} if server else {}
    command = [sys.executable, "-m", "medley", *map(str, arguments)]
    with _interrupts(interrupts):
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment() | server_named,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    with process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _interrupts(inherited: signal.Handlers) -> Iterator[None]:
    """Let processes that are started meanwhile find `inherited` for SIGINT, whatever this process was started with."""
    # A handler of Python's becomes the default where another program is started; "ignored" is passed on.
    handler = signal.default_int_handler if inherited is signal.SIG_DFL else inherited
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run(*arguments: object, cwd: Path, server: str = "") -> Answer:
    """Run a command to its end."""
    with started(*arguments, cwd=cwd, server=server) as process:
        return ended(process)


def medley(suite: Suite, *arguments: object) -> Answer:
    """Run a command against the gateway of `suite` to its end."""
    return run(*arguments, cwd=ROOT, server=suite.addresses["gateway"])


def ended(process: subprocess.Popen[str]) -> Answer:
    """Wait for a command to end."""
    out, err = process.communicate(timeout=HANG_SECONDS)
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
    with up_until_signalled(folder) as (process, address):
        try:
            yield address
        finally:
            process.terminate()
            answer = ended(process)
            assert answer.code == 0, answer.err


@contextmanager
def up_until_signalled(
    folder: Path, interrupts: signal.Handlers = signal.SIG_DFL
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `medley up`, which the block is to end; yield the process and the address it says."""
    arguments = ("up", "--data", folder / "data", "--port-base", reserve_ports(4))
    with started(*arguments, cwd=folder, interrupts=interrupts) as process:
        yield process, _said_address(process)


def _said_address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("medley is up on "):
            return line.split()[4].rstrip(",")
    raise AssertionError(f"medley up ended: {ended(process).err}")
