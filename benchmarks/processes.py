"""Runs Medley as its users do: in one process, or in four."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import medley

SERVICES = ("gateway", "embedder", "store", "search")
START_SECONDS = 60.0
STOP_SECONDS = 150.0  # a search process may have a snapshot to save

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Suite:
    """A running Medley: the services' addresses, and the process ids by module (`services`, or one per service)."""

    addresses: Mapping[str, str]
    processes: Mapping[str, int]

    @property
    def server(self) -> str:
        """The gateway's address."""
        return self.addresses["gateway"]

    def resident_mib(self, *modules: str) -> float:
        """Return the resident memory of the processes of `modules`, or of all, in MiB."""
        return sum(resident_bytes(self.processes[module]) for module in modules or self.processes) / 2**20


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    listed = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(listed.stdout) * 1024


def private_bytes(pid: int) -> int:
    """Return the resident memory of a process that no file backs."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("RssAnon:")) * 1024


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, all threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def one_process(folder: Path) -> Iterator[Suite]:
    """Run all services in one process, their data in `folder`."""
    with _running(["services"], folder) as suite:
        yield suite


@contextmanager
def four_processes(folder: Path, **settings: str) -> Iterator[Suite]:
    """Run each service in a process of its own, their data in `folder`; `settings` go to their environment."""
    with _running([f"services.{name}" for name in SERVICES], folder, settings) as suite:
        yield suite


@contextmanager
def _running(modules: list[str], folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[Suite]:
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    environment = {**_environment(ports, folder), **(settings or {})}
    with ExitStack() as stack:
        log = stack.enter_context((folder / "medley.log").open("ab"))
        started = {module: stack.enter_context(process(module, environment, log)) for module in modules}
        addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        yield Suite(addresses, {module: each.pid for module, each in started.items()})


@contextmanager
def process(
    module: str, environment: Mapping[str, str], log: IO[bytes], *arguments: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module in a process of its own while the block runs."""
    started = subprocess.Popen([sys.executable, "-m", module, *arguments], env=environment, stdout=log, stderr=log)
    try:
        yield started
    finally:
        started.terminate()
        started.wait(STOP_SECONDS)


# The embedder's cache is off, so that every query pays for its embedding, as the floor's does.
def _environment(ports: Mapping[str, int], folder: Path) -> Mapping[str, str]:
    listens = {f"{name.upper()}_LISTEN": f"127.0.0.1:{port}" for name, port in ports.items()}
    addresses = {
        f"{asker}_{name.upper()}_ADDRESS": f"127.0.0.1:{ports[name]}"
        for asker in ("GATEWAY", "SEARCH")
        for name in ("embedder", "store", "search")
    }
    own = {"STORE_DATA_DIR": str(folder / "data"), "EMBEDDER_TEXT_CACHE_ENTRIES": "0"}
    return {**os.environ, **listens, **addresses, **own}


def ready(suite: Suite) -> None:
    """Return once all services answer."""
    with medley.Client(suite.server, timeout=START_SECONDS) as client:
        _retry_until_ready(lambda: _raise_service_error(client.status()))


def first_answer(suite: Suite, collection: str, query: str) -> medley.SearchResult:
    """Return the first answer to `query`, retried until the suite has started."""
    with medley.Client(suite.server, timeout=1) as client:
        return _retry_until_ready(lambda: client.search(collection, text=query))


def _retry_until_ready(ask: Callable[[], T]) -> T:
    give_up = time.monotonic() + START_SECONDS
    while True:
        try:
            return ask()
        except (medley.UnavailableError, medley.DeadlineError):
            if time.monotonic() > give_up:
                raise
            time.sleep(0.01)


def _raise_service_error(status: medley.Status) -> None:
    for service in status.services:
        if service.error is not None:
            raise service.error


def free_ports(count: int) -> list[int]:
    """Return free ports of this machine."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
