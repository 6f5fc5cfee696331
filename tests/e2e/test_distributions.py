"""Both distributions, built and installed into empty environments: the client's, and the server's beside it."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import medley
from tests.integration.suite import ROOT
from tests.ports import reserve_ports

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
OLDEST_HAVE_WHEELS_UP_TO = (3, 12)
QUERY = """
import sys, medley
with medley.Client(sys.argv[1]) as client:
    client.create_collection("notes")
    notes = {"tea": "Tea needs water just off the boil", "car": "The engine wants new oil"}
    assert all(result.ok for result in client.ingest("notes", [medley.NewItem(id, text) for id, text in notes.items()]))
    print(client.search("notes", text="a hot drink").hits[0].id)
"""


@dataclass(frozen=True)
class Wheel:
    """A distribution that was built."""

    path: Path

    @property
    def metadata(self) -> PathDistribution:
        name = "-".join(self.path.name.split("-")[:2])
        return PathDistribution(zipfile.Path(self.path) / f"{name}.dist-info")

    @property
    def packages(self) -> set[str]:
        """Return what it puts into site-packages, its own metadata aside."""
        with zipfile.ZipFile(self.path) as archive:
            return {top for name in archive.namelist() if not (top := name.partition("/")[0]).endswith(".dist-info")}

    def oldest(self, extra: str) -> list[str]:
        """Return what it requires with an extra, each at the oldest version that it allows."""
        required = map(Requirement, self.metadata.requires or ())
        return [
            f"{each.name}=={bound.version}"
            for each in required
            if each.marker is None or each.marker.evaluate({"extra": extra})
            for bound in each.specifier
            if bound.operator in {">=", "=="}
        ]


@dataclass(frozen=True)
class Environment:
    """A virtual environment that has what was installed into it and nothing else."""

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> "Environment":
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        return cls(folder)

    def pip(self, *arguments: object) -> None:
        subprocess.run([*PIP, "--python", self.folder / "bin" / "python", *map(str, arguments)], check=True)

    def start(self, program: str, *arguments: object, cwd: Path) -> subprocess.Popen[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MEDLEY_"))}
        return subprocess.Popen(
            [self.folder / "bin" / program, *map(str, arguments)],
            cwd=cwd,
            env=clean | {"PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "error"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, program: str, *arguments: object, cwd: Path) -> tuple[int, str, str]:
        """Return a program's exit code and what it wrote to its standard output and error."""
        with self.start(program, *arguments, cwd=cwd) as process:
            out, err = process.communicate(timeout=120)
        return process.returncode, out, err


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Wheel]:
    """Both distributions by name."""
    folder = tmp_path_factory.mktemp("wheels")
    places = (ROOT, ROOT / "packaging" / "server")
    subprocess.run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, *places], check=True)
    return {wheel.metadata.name: wheel for wheel in map(Wheel, folder.iterdir())}


@pytest.fixture(scope="module")
def _index() -> None:
    """Skip what installs packages where none can be had."""
    ask = [*PIP, "--retries", "0", "--timeout", "20", "index", "versions", "grpcio"]
    if subprocess.run(ask, check=False, capture_output=True).returncode:
        pytest.skip("no package index can be reached")


@pytest.fixture(scope="module")
def server(_index: None, wheels: dict[str, Wheel], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The server, with the versions that are locked."""
    environment = Environment.made(tmp_path_factory.mktemp("server"))
    locked = ("--no-deps", "--require-hashes", "-r", ROOT / "requirements" / "server.txt")
    environment.pip("install", "--no-compile", *locked)
    environment.pip("install", "--no-deps", *(wheel.path for wheel in wheels.values()))
    environment.pip("check")
    return environment


@pytest.fixture(scope="module")
def client(_index: None, wheels: dict[str, Wheel], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The client alone, with the oldest versions that it allows."""
    return oldest_client(wheels["medley"], tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def command_line(_index: None, wheels: dict[str, Wheel], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The client with its command line, with the oldest versions that they allow."""
    return oldest_client(wheels["medley"], tmp_path_factory.mktemp("cli"), extra="cli")


def oldest_client(wheel: Wheel, folder: Path, *, extra: str = "") -> Environment:
    if sys.version_info[:2] > OLDEST_HAVE_WHEELS_UP_TO:
        pytest.skip("the oldest versions allowed have no wheels for this Python")
    environment = Environment.made(folder)
    ours = f"medley[{extra}] @ {wheel.path.as_uri()}" if extra else wheel.path
    environment.pip("install", "--no-compile", "--only-binary", ":all:", ours, *wheel.oldest(extra))
    environment.pip("check")
    return environment


@contextmanager
def medley_up(server: Environment, folder: Path) -> Iterator[str]:
    """Run `medley up` in `folder`; yield its address."""
    with server.start("medley", "up", "--port-base", reserve_ports(4), cwd=folder) as process:
        assert process.stdout is not None
        try:
            yield next(line.split()[4].rstrip(",") for line in process.stdout if line.startswith("medley is up on "))
        finally:
            process.terminate()


def test_each_distribution_brings_its_own_package_only(wheels: dict[str, Wheel]) -> None:
    assert {name: wheel.packages for name, wheel in wheels.items()} == {
        "medley": {"medley"},
        "medley-server": {"services"},
    }


def test_both_have_one_version_and_the_server_requires_the_client_of_it(wheels: dict[str, Wheel]) -> None:
    assert {wheel.metadata.version for wheel in wheels.values()} == {medley.__version__}
    assert f"medley[cli]=={medley.__version__}" in (wheels["medley-server"].metadata.requires or ())


def test_licences_are_in_both(wheels: dict[str, Wheel]) -> None:
    for wheel in wheels.values():
        assert wheel.metadata.read_text("licenses/LICENSE") == (ROOT / "LICENSE").read_text()
        assert wheel.metadata.read_text("licenses/NOTICE") == (ROOT / "NOTICE").read_text()


def test_the_oldest_client_queries_a_server(client: Environment, server: Environment, tmp_path: Path) -> None:
    with medley_up(server, tmp_path) as address:
        assert client.run("python", "-c", QUERY, address, cwd=tmp_path) == (0, "tea\n", "")


def test_the_oldest_command_line_fills_and_queries_a_server(
    command_line: Environment, server: Environment, tmp_path: Path
) -> None:
    (tmp_path / "shoes.csv").write_text(
        "id,text\ntea,Tea needs water just off the boil\ncar,The engine wants new oil\n"
    )
    with medley_up(server, tmp_path) as address:

        def run(*arguments: str) -> str:
            code, out, err = command_line.run("medley", *arguments, "--server", address, cwd=tmp_path)
            assert code == 0, err
            return out

        run("ingest", "shoes.csv", "-c", "notes", "--create")
        found = json.loads(run("search", "a hot drink", "-c", "notes", "--sheet", "found.png", "--json"))
    assert found["hits"][0]["item"]["id"] == "tea"
    assert (tmp_path / "found.png").stat().st_size


def test_the_client_alone_says_what_its_command_line_needs(client: Environment, tmp_path: Path) -> None:
    code, _, err = client.run("medley", "status", cwd=tmp_path)
    assert (code, err) == (1, "medley: the command line needs click: pip install 'medley[cli]'\n")


@pytest.mark.parametrize("command", [("up",), ("demo",), ("models", "list")])
def test_without_the_server_commands_say_what_to_install(
    command: tuple[str, ...], command_line: Environment, tmp_path: Path
) -> None:
    code, out, err = command_line.run("medley", *command, cwd=tmp_path)
    assert (code, out) == (1, "")
    assert f"pip install medley-server=={medley.__version__}" in err


def test_a_folder_named_services_does_not_stand_in_for_the_server(server: Environment, tmp_path: Path) -> None:
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "__init__.py").write_text("raise RuntimeError('not ours')")
    with medley_up(server, tmp_path) as address:
        assert server.run("medley", "status", "--server", address, cwd=tmp_path)[0] == 0
