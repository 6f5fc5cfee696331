"""Find the MinIO server that the tests run against, or build it: its community edition comes as source only."""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MODULE = "github.com/minio/minio@latest"
CACHED = Path(__file__).parents[1] / ".cache" / "bin" / "minio"
_NO_GO = """\
The MinIO server is built from source, and there is no Go here to build it with. Any of these helps:
- install Go 1.24 or newer (https://go.dev/doc/install) and run `make minio` again;
- set MEDLEY_MINIO to a minio server that is installed already;
- set MEDLEY_TEST_S3_ENDPOINT, _ACCESS_KEY and _SECRET_KEY, and the tests use that S3 endpoint instead."""


def find() -> Path | None:
    """Return the path of the server; None if there is none."""
    return next((path for path in _places() if os.access(path, os.X_OK) and path.is_file()), None)


def build() -> None:
    """Build the server into the cache; it takes some minutes."""
    go = shutil.which("go")
    if go is None:
        sys.exit(_NO_GO)
    print(f"building {MODULE}: this takes some minutes", flush=True)
    CACHED.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "GOBIN": str(CACHED.parent), "CGO_ENABLED": "0"}
    subprocess.run([go, "install", MODULE], env=environment, check=True)


def main() -> None:
    """Build the server if there is none, and print its path."""
    parser = argparse.ArgumentParser(prog="python -m tools.minio", description=__doc__)
    parser.add_argument("--if-possible", action="store_true", help="where there is no Go, only say what that means")
    arguments = parser.parse_args()
    if find() is None and shutil.which("go") is None and arguments.if_possible:
        print(f"{_NO_GO}\nUntil then the tests that need it are skipped.")
        return
    if find() is None:
        build()
    print(find())


def _places() -> Iterator[Path]:
    if given := os.environ.get("MEDLEY_MINIO"):
        yield Path(given)
    yield CACHED
    yield Path.home() / ".cache" / "medley-bin" / "minio"


if __name__ == "__main__":
    main()
