"""All services in one process on this machine, for `medley up` and `medley demo`."""

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
"""Python's option that keeps the working directory off the module path, which may have a folder `services`."""

POLL_SECONDS = 0.1
READY_SECONDS = 60.0
STOP_SECONDS = 20.0
LOG_TAIL_CHARACTERS = 2000


class LocalServerError(Exception):
    """The services did not start, or stopped."""


@dataclass(frozen=True, slots=True)
class LocalServer:
    """Running services: the gateway's address, the process, and its log file (None: it shares our stderr)."""

    server: str
    process: subprocess.Popen[bytes]
    log: Path | None

    def wait_until_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until every service answers.

        Raises:
            LocalServerError: the process ended, or `seconds` passed.
        """
        until = time.monotonic() + seconds
        with Client(self.server, timeout=2.0) as client:
            while not _is_ready(client):
                if self.process.poll() is not None:
                    raise LocalServerError(
                        f"the services ended with code {self.process.returncode}{self._last_log_line()}"
                    )
                if time.monotonic() > until:
                    raise LocalServerError(
                        f"the services were not ready after {seconds:g} seconds{self._last_log_line()}"
                    )
                time.sleep(POLL_SECONDS)

    def wait(self) -> int:
        """Return the exit code of the process once it has ended.

        Polls, because a signal that arrives just before an endless wait would be missed.
        """
        while self.process.poll() is None:
            time.sleep(POLL_SECONDS)
        return self.process.returncode

    def stop(self) -> int:
        """Terminate the process, kill it after a timeout, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def _last_log_line(self) -> str:
        tail = self.log.read_text("utf-8", "replace")[-LOG_TAIL_CHARACTERS:].strip() if self.log else ""
        return f": {tail.splitlines()[-1]}" if tail else ""


@contextlib.contextmanager
def run_local_server(directory: Path, ports: list[int], log: Path | None = None) -> Iterator[LocalServer]:
    """Start the services on `ports`, with their data in `directory`, and stop them after the block.

    Raises:
        LocalServerError: a port is taken, or the distribution `medley-server` is not installed.
    """
    require_server()
    for port in ports:
        _check_port_is_free(port)
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

    Looks for the distribution, not for the package `services`, which another project may have.

    Raises:
        LocalServerError: they are not.
    """
    try:
        importlib.metadata.version(SERVER_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError as error:
        install = f"pip install {SERVER_DISTRIBUTION}=={__version__}"
        raise LocalServerError(
            f"the services are the package {SERVER_DISTRIBUTION}, which is not installed: {install}"
        ) from error


def find_free_ports() -> list[int]:
    """Return a port for each service that is free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in SERVICES]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _settings(directory: Path, ports: list[int]) -> dict[str, str]:
    listen = {f"{service.upper()}_LISTEN": f"127.0.0.1:{port}" for service, port in zip(SERVICES, ports, strict=True)}
    return listen | {"STORE_DATA_DIR": str(directory)}


def _check_port_is_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise LocalServerError(
                f"port {port} is taken ({error.strerror}): choose others with --port-base"
            ) from error


def _is_ready(client: Client) -> bool:
    try:
        return all(service.error is None for service in client.status().services)
    except Error:
        return False
