"""Generate medley/v1 from protos/; check that it is current, the API's style, and compatibility with the last release.

All need only the development dependencies: the imported google/*.proto files come with googleapis-common-protos.
"""

import filecmp
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROTOS = sorted(str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos").rglob("*.proto"))
GENERATED = Path("medley/v1")
BIN = Path(sys.executable).parent


def generate(target: Path) -> None:
    """Write the generated modules below `target`."""
    _protoc(
        f"--python_out={target}",
        f"--grpc_python_out={target}",
        f"--mypy_out=quiet:{target}",
        f"--mypy_grpc_out=quiet:{target}",
    )
    (target / GENERATED / "__init__.py").write_text('"""Generated from protos/; never edited."""\n')


def check() -> int:
    """Return 0 when `medley/v1` is what would be generated and `buf lint` finds nothing, else 1."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        drift = _differences(Path(folder) / GENERATED, ROOT / GENERATED)
        image = _image(ROOT / "protos", Path(folder) / "api.binpb")
        lint = _buf("lint", image, "--config", "buf.yaml", "--path", "medley")
    for name in drift:
        print(f"{GENERATED / name} is not what protos/ generates: run `make proto`", file=sys.stderr)
    return 1 if drift or lint else 0


def breaking() -> int:
    """Return 0 when nothing breaks clients of the last release or there is none, else 1; `buf` names what does."""
    release = _last_release()
    if release is None:
        print("no release yet: there is nothing to break")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", release, "protos"], cwd=ROOT, check=True, capture_output=True)
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        released = _image(Path(folder) / "protos", Path(folder) / "released.binpb")
        current = _image(ROOT / "protos", Path(folder) / "current.binpb")
        return 1 if _buf("breaking", current, "--against", released, "--config", "buf.yaml", "--path", "medley") else 0


def _protoc(*outputs: str, protos: Path = ROOT / "protos", sources: Sequence[str] = PROTOS) -> None:
    includes = ["-I", str(protos), "-I", sysconfig.get_path("purelib")]
    command = [sys.executable, "-m", "grpc_tools.protoc", *includes, *outputs, *sources]
    plugins = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    subprocess.run(command, cwd=ROOT, env=plugins, check=True)


def _buf(*arguments: str | Path) -> int:
    return subprocess.run([BIN / "buf", *arguments], cwd=ROOT, check=False).returncode


def _image(protos: Path, image: Path) -> Path:
    """Compile all of `protos` into a descriptor set with its imports and comments."""
    sources = sorted(str(path.relative_to(protos)) for path in protos.rglob("*.proto"))
    _protoc(
        "--include_imports", "--include_source_info", f"--descriptor_set_out={image}", protos=protos, sources=sources
    )
    return image


def _last_release() -> str | None:
    """Return the newest tag `v*` before this commit."""
    describe = ["git", "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"]
    found = subprocess.run(describe, cwd=ROOT, check=False, capture_output=True, text=True)
    return found.stdout.strip() or None


def _differences(fresh: Path, committed: Path) -> list[str]:
    names = {path.name for folder in (fresh, committed) for path in folder.iterdir() if path.is_file()}
    _, differing, missing = filecmp.cmpfiles(fresh, committed, sorted(names), shallow=False)
    return sorted(differing + missing)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["generate"]:
            (ROOT / GENERATED).mkdir(parents=True, exist_ok=True)
            generate(ROOT)
        case ["check"]:
            sys.exit(check())
        case ["breaking"]:
            sys.exit(breaking())
        case _:
            sys.exit("usage: python -m tools.protos generate|check|breaking")
