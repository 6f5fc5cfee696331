"""The Milvus that tests run against: Milvus Lite in a process of its own, or the one MEDLEY_TEST_MILVUS_URI names."""

import atexit
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from uuid import uuid4

import pytest

from services.search.engines.milvus.options import MilvusOptions
from tests.ports import reserve_port
from tests.waiting import HANG_SECONDS

START_SECONDS = 60.0


@dataclass
class MilvusServer:
    """A Milvus Lite on a port of its own, its data in `folder`; it can be killed, stopped and started again."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """How to get there."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(self.folder / "milvus.db")]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        give_up = time.monotonic() + START_SECONDS
        while not self._listens():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < give_up, "Milvus Lite does not listen"
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill it as a power cut would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(HANG_SECONDS)
            self.process = None

    def hang(self) -> None:
        """Let it stop working, its connections open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it work again."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def milvus_server(folder: Path) -> MilvusServer:
    """Return a server, not started; skips the test where Milvus Lite is not installed."""
    if importlib.util.find_spec("milvus_lite") is None:
        pytest.skip("milvus-lite is not installed: pip install milvus-lite")
    return MilvusServer(folder, reserve_port())


def fresh_options(**options: object) -> MilvusOptions:
    """Return options whose names nothing else has; skips where there is no Milvus."""
    uri, token = _shared()
    return MilvusOptions(uri, token, prefix=f"t{uuid4().hex[:8]}", **options)  # type: ignore[arg-type]  # named ones


@cache
def _shared() -> tuple[str, str]:
    given = os.environ.get("MEDLEY_TEST_MILVUS_URI")
    if given:
        return given, os.environ.get("MEDLEY_TEST_MILVUS_TOKEN", "")
    folder = tempfile.TemporaryDirectory(prefix="medley-milvus-")
    atexit.register(folder.cleanup)
    server = milvus_server(Path(folder.name))
    atexit.register(server.kill)
    server.start()
    return server.uri, ""
