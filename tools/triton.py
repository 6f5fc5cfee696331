"""A real Triton server for development and tests, without a container: set it up, start it.

The package nvidia-pytriton carries the `tritonserver` binary with the Python backend; the binary is run as it is.
"""

import argparse
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "deploy" / "triton" / "requirements.txt"
HOME = ROOT / ".cache" / "triton"
VENV = HOME / "venv"
BACKENDS = HOME / "backends"
STAMP = HOME / "stamp"
STUB = "triton_python_backend_stub"
START_SECONDS = 60.0


class SetUpError(Exception):
    """The server cannot be installed or started on this machine."""


def set_up() -> None:
    """Install the server under `.cache/triton`; do nothing if it is installed.

    Raises:
        SetUpError: it does not support this Python or this system.
    """
    if is_installed():
        return
    shutil.rmtree(HOME, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", str(REQUIREMENTS)], check=True)
    _link_backend()
    _check_libraries()
    STAMP.write_text(_expected_stamp())


def is_installed() -> bool:
    """Return whether the server is installed in the current versions."""
    return STAMP.exists() and STAMP.read_text() == _expected_stamp()


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of a server."""

    grpc: int
    http: int
    metrics: int

    @classmethod
    def free(cls) -> Self:
        """Return three free ports."""
        with socket.socket() as one, socket.socket() as two, socket.socket() as three:
            for each in (one, two, three):
                each.bind(("127.0.0.1", 0))
            return cls(*(each.getsockname()[1] for each in (one, two, three)))


class TritonServer:
    """A server over a model repository; models are loaded and unloaded on request (`--model-control-mode=explicit`).

    Use it as a context manager, or call `start` and `stop`. It may be killed and started again on the same ports.
    """

    def __init__(self, repository: Path, log: Path, ports: Ports | None = None) -> None:
        self.ports = ports or Ports.free()
        self._repository = repository
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Host and port of its gRPC service."""
        return f"127.0.0.1:{self.ports.grpc}"

    @property
    def pid(self) -> int:
        """The process id; the server must have been started."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()  # nothing needs a graceful shutdown

    def start(self) -> None:
        """Start it, and wait until it is ready.

        Raises:
            SetUpError: it is not ready within a minute.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command(self._repository, self.ports),
                env=_environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop it by SIGTERM, so that requests in flight finish."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(15)
        self.kill()

    def kill(self) -> None:
        """Kill it and its stubs by SIGKILL."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and its stubs."""
        os.killpg(self.pid, number)

    def stubs(self, model: str) -> list[int]:
        """Return the process ids of the instances of `model`."""
        return [pid for pid, words in _children(self.pid) if STUB in words[0] and any(model in word for word in words)]

    def wait(self) -> int:
        """Wait until it exits; return its exit status."""
        assert self._process is not None
        return self._process.wait()

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while not _ready(self.ports.http):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SetUpError(f"Triton did not start; the end of its log, {self._log}:\n{_read_tail(self._log)}")
            time.sleep(0.1)


def command(repository: Path, ports: Ports) -> list[str]:
    """Return the command line of a server over `repository`."""
    return [
        str(_package() / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={BACKENDS}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={ports.grpc}",
        "--http-address=127.0.0.1",
        f"--http-port={ports.http}",
        f"--metrics-port={ports.metrics}",
        "--model-control-mode=explicit",  # a model whose stub died is restarted by unloading and loading it
        "--load-model=*",
        "--disable-auto-complete-config",  # it starts each stub twice: seconds
        "--pinned-memory-pool-byte-size=0",
        "--allow-gpu-metrics=false",
        "--exit-timeout-secs=10",
        "--log-format=ISO8601",
    ]


@contextmanager
def serve_models(models_dir: Path, repository: Path, *, instances: int) -> Iterator[TritonServer]:
    """Write `repository` from `models_dir` and serve it while the block runs."""
    from services.embedder.triton_repository import write_repository  # noqa: PLC0415  # set-up needs none of Medley

    shutil.rmtree(repository, ignore_errors=True)
    write_repository(models_dir, repository, instances=instances)
    with TritonServer(repository, repository.with_name("server.log")) as server:
        yield server


def main() -> None:
    """Run the command of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.triton", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    setting_up = commands.add_parser("set-up", help="install the server under .cache/triton")
    setting_up.add_argument("--if-possible", action="store_true", help="where it cannot run, only say so")
    serve = commands.add_parser("serve", help="serve models until interrupted")
    serve.add_argument("--models-dir", type=Path, default=ROOT / "models")
    serve.add_argument("--instances", type=int, default=os.cpu_count() or 1, help="instances of each model")
    arguments = parser.parse_args()
    try:
        set_up()
        if arguments.command == "serve":
            _serve(arguments.models_dir, arguments.instances)
    except SetUpError as error:
        if not getattr(arguments, "if_possible", False):
            sys.exit(str(error))
        print(f"{error}; the tests that need it are skipped.")


def _serve(models_dir: Path, instances: int) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop the server with this process
    with suppress(KeyboardInterrupt), serve_models(models_dir, HOME / "repository", instances=instances) as server:
        ports = server.ports
        print(f"Triton serves gRPC on {ports.grpc}, HTTP on {ports.http}, metrics on {ports.metrics}. To use it:")
        print(f"  EMBEDDER_RUNTIME=triton EMBEDDER_TRITON_ENDPOINTS={server.endpoint}", flush=True)
        server.wait()


def _expected_stamp() -> str:
    inputs = REQUIREMENTS.read_bytes() + sys.version.encode() + str(ROOT).encode()
    return hashlib.sha256(inputs).hexdigest()


def _package() -> Path:
    return VENV / "lib" / _python() / "site-packages" / "pytriton" / "tritonserver"


def _python() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def _link_backend() -> None:
    stub = _package() / "python_backend_stubs" / _python().removeprefix("python") / STUB
    if not stub.exists():
        have = ", ".join(sorted(path.name for path in stub.parents[1].glob("3.*")))
        raise SetUpError(f"Triton's Python backend comes for Python {have}, not for {_python()}")
    folder = BACKENDS / "python"
    folder.mkdir(parents=True)
    library = _package() / "backends" / "python"
    for path in (library / "libtriton_python.so", library / "triton_python_backend_utils.py", stub):
        (folder / path.name).symlink_to(path)


def _check_libraries() -> None:
    for path in (_package() / "bin" / "tritonserver", (BACKENDS / "python" / STUB).resolve()):
        found = subprocess.run(["ldd", str(path)], env=_environment(), capture_output=True, text=True, check=False)
        missing = [line.strip() for line in (found.stdout + found.stderr).splitlines() if "not found" in line]
        if missing:
            raise SetUpError(f"Triton does not run on this system: {missing[0]}")


def _environment() -> dict[str, str]:
    # The stub must load this very Python's library, and find the packages beside the server.
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "PATH": f"{VENV / 'bin'}:{os.environ.get('PATH', '')}",
        "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
    }


def _ready(http_port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/v2/health/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _children(parent: int) -> Iterator[tuple[int, list[str]]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                yield int(folder.name), (folder / "cmdline").read_text().rstrip("\0").split("\0")


def _read_tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


if __name__ == "__main__":
    main()
