"""Generate medley/v1 from protos/, or check that it is current and that the API keeps its style.

Both need only the development dependencies: the imported google/*.proto files come with googleapis-common-protos.
"""

import filecmp
import os
import subprocess
import sys
import sysconfig
import tempfile
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
        image = Path(folder) / "api.binpb"
        _protoc("--include_imports", "--include_source_info", f"--descriptor_set_out={image}")
        lint = subprocess.run(
            [BIN / "buf", "lint", image, "--config", "buf.yaml", "--path", "medley"],
            cwd=ROOT,
            check=False,
        )
    for name in drift:
        print(f"{GENERATED / name} is not what protos/ generates: run `make proto`", file=sys.stderr)
    return 1 if drift or lint.returncode else 0


def _protoc(*outputs: str) -> None:
    includes = ["-I", "protos", "-I", sysconfig.get_path("purelib")]
    command = [sys.executable, "-m", "grpc_tools.protoc", *includes, *outputs, *PROTOS]
    plugins = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    subprocess.run(command, cwd=ROOT, env=plugins, check=True)


def _buf(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([BIN / "buf", *arguments], cwd=ROOT, check=False)


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
        case _:
            sys.exit("usage: python -m tools.protos generate|check")
