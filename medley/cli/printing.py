"""Output: tables for people, JSON for programs, errors on stderr."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click
import numpy as np
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from medley.errors import Error
from medley.text import item_name, one_line, printable
from medley.values import Item

WIDTH = 80
GAP = 2
MIN_FLEXIBLE = 16
MIN_ID = 12


def console(*, stderr: bool = False) -> Console:
    """Return a console as wide as the terminal, or, without one, of 80 columns and without colours."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else WIDTH)


def progress_bar() -> Progress:
    """Return a progress bar on stderr, shown only if that is a terminal, and removed at the end."""
    screen = console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)


def print_error(problem: str) -> None:
    """Print one line on stderr."""
    click.echo(f"medley: {printable(problem)}", err=True)


def print_json(value: Any) -> None:
    """Print `value`, which may contain the client's values, as JSON."""
    click.echo(json.dumps(to_jsonable(value), ensure_ascii=True, indent=2))


def print_table(
    names: Sequence[str], rows: Iterable[Sequence[object]], *, flexible: str, right: Iterable[str] = ()
) -> None:
    """Print `rows` under `names`, one line each.

    If a line is too long, the column `flexible` is cut first, ending in …, then the first column, and no other.
    """
    cells = [[one_line("" if cell is None else str(cell)) for cell in row] for row in rows]
    screen = console()
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for column, width in zip(names, _widths(names, cells, names.index(flexible), screen.width), strict=True):
        justify: JustifyMethod = "right" if column in right else "left"
        table.add_column(column, width=width, no_wrap=True, overflow="ellipsis", justify=justify)
    for row in cells:
        table.add_row(*map(Text, row))
    screen.print(table)


def _widths(names: Sequence[str], cells: Sequence[Sequence[str]], flexible: int, line: int) -> list[int]:
    """Return the width of each column of the table, in characters."""
    widths = [max(map(cell_len, column)) for column in zip(names, *cells, strict=True)]
    for cut, least in ((flexible, MIN_FLEXIBLE), (0, MIN_ID)):
        excess = sum(widths) + GAP * (len(widths) - 1) - line
        widths[cut] = max(min(widths[cut], least), widths[cut] - max(0, excess))
    return widths


def item_title(item: Item) -> str:
    """Return an item's name, its text, or its kind of media."""
    media = f"({item.media.mime_type or 'media'})" if item.media else ""
    return item_name(item) or item.text or media


def to_jsonable(value: Any) -> Any:
    """Return `value` in JSON types: the client's values by field, times in ISO 8601, without bytes."""
    match value:
        case Error():
            return {"reason": value.reason, "message": str(value), "metadata": value.metadata}
        case datetime():
            return value.isoformat()
        case np.ndarray():
            return value.tolist()
        case Mapping():
            return {str(key): to_jsonable(inner) for key, inner in value.items() if not isinstance(inner, bytes)}
        case list() | tuple():
            return [to_jsonable(inner) for inner in value]
        case _ if dataclasses.is_dataclass(value):
            return to_jsonable({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
        case _:
            return value
