"""The whole suite as a user runs it: one process or four, on free ports, with a directory of its own.

with one_process(tmp_path) as suite:
    async with suite.gateway() as gateway:
        await gateway.GetStatus(pb.GetStatusRequest())
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from medley.v1 import gateway_service_pb2_grpc as pb_grpc
from tests.ports import reserve_port
from tests.waiting import HANG_SECONDS

SERVICES = ("store", "embedder", "search", "gateway")
START_SECONDS = 60.0
MAX_MESSAGE_BYTES = 256 * 2**20
ROOT = Path(__file__).parents[2]
_PREFIXES = tuple(f"{service.upper()}_" for service in SERVICES)


@dataclass
class Suite:
    """A suite that runs: where each service answers, and the processes by name (`all`, or one a service)."""

    addresses: Mapping[str, str]
    environment: dict[str, str]
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator["pb_grpc.GatewayServiceAsyncStub"]:
        """Give a stub of the gateway."""
        async with self.channel("gateway") as channel:
            yield pb_grpc.GatewayServiceStub(channel)

    @asynccontextmanager
    async def channel(self, service: str) -> AsyncIterator[grpc.aio.Channel]:
        """Give a channel to a service that takes messages larger than the service does."""
        limits = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
        limits.append(("grpc.max_send_message_length", MAX_MESSAGE_BYTES))
        async with grpc.aio.insecure_channel(self.addresses[service], options=limits) as channel:
            yield channel

    def kill(self, name: str = "all") -> None:
        """Kill a process as a power cut would."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait(HANG_SECONDS)

    def start(self, name: str = "all") -> None:
        """Start a process, and wait until it answers."""
        module = "services" if name == "all" else f"services.{name}"
        self.processes[name] = command(module, self.environment)
        for service in SERVICES if name == "all" else (name,):
            _await_port(self.addresses[service], self.processes[name])

    def stop(self) -> None:
        """Stop every process in order, callers before those they call."""
        for name in reversed(list(self.processes)):
            process = self.processes.pop(name)
            process.terminate()
            process.wait(HANG_SECONDS)


@contextmanager
def one_process(directory: Path, **environment: str) -> Iterator[Suite]:
    """Run all four services in one process; `environment` adds settings."""
    yield from _running(directory, ["all"], environment)


@contextmanager
def four_processes(directory: Path, **environment: str) -> Iterator[Suite]:
    """Run each service in a process of its own; `environment` adds settings."""
    yield from _running(directory, list(SERVICES), environment)


def command(module: str, environment: Mapping[str, str], **pipes: Any) -> subprocess.Popen[str]:
    """Start a service's module with the settings in `environment` alone; `pipes` as for `Popen`."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIXES)}
    return subprocess.Popen(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env={**settings, **environment},
        text=True,
        **{"stdout": subprocess.DEVNULL, **pipes},
    )


def free_address() -> str:
    """Return an address of this machine that nothing listens on."""
    return f"127.0.0.1:{reserve_port()}"


def _running(directory: Path, names: list[str], environment: Mapping[str, str]) -> Iterator[Suite]:
    addresses = {service: free_address() for service in SERVICES}
    suite = Suite(addresses, {**_settings(directory, addresses), **environment})
    try:
        for name in names:
            suite.start(name)
        yield suite
    finally:
        suite.stop()


def _settings(directory: Path, addresses: Mapping[str, str]) -> dict[str, str]:
    listening = {f"{service.upper()}_LISTEN": address for service, address in addresses.items()}
    return {
        **listening,
        "STORE_DATA_DIR": str(directory),
        "SEARCH_STORE_ADDRESS": addresses["store"],
        **{f"GATEWAY_{service.upper()}_ADDRESS": addresses[service] for service in ("store", "embedder", "search")},
        "EMBEDDER_THREADS": "1",
    }


def _await_port(address: str, process: subprocess.Popen[str]) -> None:
    host, _, port = address.rpartition(":")
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up:
        assert process.poll() is None, f"a service ended with {process.returncode} instead of listening on {address}"
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"nothing listens on {address}")
