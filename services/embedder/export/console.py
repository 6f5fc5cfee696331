"""Progress messages and errors of a build, on stderr; stdout has only the results."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import console as rich_console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


class Console:
    """Prints to stderr."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = rich_console.Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)

    def print_line(self, line: str) -> None:
        """Print a message unless quiet."""
        self._console.print(line, markup=False)

    def print_error(self, line: str) -> None:
        """Print an error, even if quiet."""
        print(f"medley: {line}", file=sys.stderr)

    @contextmanager
    def progress(self) -> Iterator[type[Any]]:
        """Show a progress bar of bytes while the block runs; yield the tqdm class for the hub's client."""
        from tqdm import tqdm

        columns = (
            TextColumn("downloading"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as shown:
            task = shown.add_task("bytes", total=None)

            class Bar(tqdm):
                """A tqdm bar that rich displays."""

                def __init__(self, *arguments: Any, **options: Any) -> None:
                    super().__init__(*arguments, **{**options, "file": io.StringIO()})

                def display(self, *_: Any, **__: Any) -> bool:
                    if self.unit == "B":
                        shown.update(task, completed=self.n, total=self.total or None)
                    return True

            yield Bar


def megabytes(size: int) -> str:
    """Format `size` bytes as MB or GB."""
    return f"{size / 10**6:.1f} MB" if size < 10**9 else f"{size / 10**9:.2f} GB"


def folder_size(folder: Path) -> int:
    """Return the total size in bytes of the files in `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
