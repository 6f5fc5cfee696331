"""What is told while a model is built: on stderr, so that stdout holds results alone."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import console as rich_console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


class Console:
    """Speaks to whoever waits."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = rich_console.Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)

    def print_line(self, line: str) -> None:
        """Tell what is being done."""
        self._console.print(line, markup=False)

    def print_error(self, line: str) -> None:
        """Tell what went wrong, even if quiet."""
        print(f"medley: {line}", file=sys.stderr)

    @contextmanager
    def progress(self) -> Iterator[type[Any]]:
        """Show a bar of bytes while the block runs; what it yields is the class that the hub's client counts by."""
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
                """Counts as tqdm does, and lets rich do the drawing."""

                def __init__(self, *arguments: Any, **options: Any) -> None:
                    super().__init__(*arguments, **{**options, "file": io.StringIO()})

                def display(self, *_: Any, **__: Any) -> bool:
                    if self.unit == "B":
                        shown.update(task, completed=self.n, total=self.total or None)
                    return True

            yield Bar


def megabytes(size: int) -> str:
    """Return `size` bytes in words."""
    return f"{size / 10**6:.1f} MB" if size < 10**9 else f"{size / 10**9:.2f} GB"


def folder_size(folder: Path) -> int:
    """Return how many bytes the files of `folder` have."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
