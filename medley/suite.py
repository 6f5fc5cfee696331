"""The services as one process of this machine, for `medley up` and `medley demo`."""

import contextlib
import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medley import __version__
from medley.client import Client
from medley.errors import Error

SERVICES = ("gateway", "embedder", "store", "search")
"""In the order of their ports."""

SERVER_DISTRIBUTION = "medley-server"
SAFE_PATH = ("-P",)
"""Python's option that keeps the working directory off the module path: a folder `services` there is not ours."""

POLL_SECONDS = 0.1
READY_SECONDS = 60.0
STOP_SECONDS = 20.0
LAST_WORDS = 2000


class SuiteError(Exception):
    """The services did not start, or stopped."""


@dataclass(frozen=True, slots=True)
class LocalServer:
    """Services that run: the gateway's address, the process, and where it writes its log (None: to ours)."""

    server: str
    process: subprocess.Popen[bytes]
    log: Path | None

    def wait_until_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until every service answers.

        Raises:
            SuiteError: the process ended before, or the time is up.
        """
        until = time.monotonic() + seconds
        with Client(self.server, timeout=2.0) as client:
            while not _ready(client):
                if self.process.poll() is not None:
                    raise SuiteError(f"the services ended with code {self.process.returncode}{self._last_words()}")
                if time.monotonic() > until:
                    raise SuiteError(f"the services were not ready after {seconds:g} seconds{self._last_words()}")
                time.sleep(POLL_SECONDS)

    def wait(self) -> int:
        """Return the code of the process once it has ended.

        It is looked for again and again: a signal that comes just before a wait without end would be slept through.
        """
        while self.process.poll() is None:
            time.sleep(POLL_SECONDS)
        return self.process.returncode

    def stop(self) -> int:
        """End the process, by force if it must be, and return its code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def _last_words(self) -> str:
        words = self.log.read_text("utf-8", "replace")[-LAST_WORDS:].strip() if self.log else ""
        return f": {words.splitlines()[-1]}" if words else ""


@contextlib.contextmanager
def suite(directory: Path, ports: list[int], log: Path | None = None) -> Iterator[LocalServer]:
    """Start the services on `ports`, with their data in `directory`, and stop them after the block.

    Raises:
        SuiteError: a port is taken, or the distribution `medley-server` is not installed.
    """
    require_server()
    for port in ports:
        _check_free(port)
    environment = os.environ | _settings(directory, ports)
    command = [sys.executable, *SAFE_PATH, "-m", "services"]
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(log.open("wb")) if log else None
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
        running = LocalServer(f"127.0.0.1:{ports[0]}", process, log)
        stack.callback(running.stop)
        yield running


def require_server() -> None:
    """Check that the services are installed.

    The distribution is asked for, not the package `services`: another project's may be importable.

    Raises:
        SuiteError: they are not.
    """
    try:
        importlib.metadata.version(SERVER_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError as error:
        install = f"pip install {SERVER_DISTRIBUTION}=={__version__}"
        raise SuiteError(
            f"the services are the package {SERVER_DISTRIBUTION}, which is not installed: {install}"
        ) from error


def free_ports() -> list[int]:
    """Return a port for each service that is free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in SERVICES]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _settings(directory: Path, ports: list[int]) -> dict[str, str]:
    listen = {f"{service.upper()}_LISTEN": f"127.0.0.1:{port}" for service, port in zip(SERVICES, ports, strict=True)}
    return listen | {"STORE_DATA_DIR": str(directory)}


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SuiteError(f"port {port} is taken ({error.strerror}): choose others with --port-base") from error


def _ready(client: Client) -> bool:
    try:
        return all(service.error is None for service in client.status().services)
    except Error:
        return False
