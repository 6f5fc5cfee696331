"""How answers look: tables for people, JSON for programs, complaints on stderr."""

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
from medley.values import Item
from medley.wording import name, one_line, printable

WIDTH = 80
GAP = 2
MIN_STRETCHED = 16
MIN_ID = 12


def console(*, stderr: bool = False) -> Console:
    """Return what prints tables: as wide as the terminal, or 80 columns where there is none, then without colours."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else WIDTH)


def counting_bar() -> Progress:
    """Return a bar that counts what is done, on stderr, where that is a terminal; it is gone when all is."""
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
    """Print `value`, maybe made of the client's values, as JSON."""
    click.echo(json.dumps(plain(value), ensure_ascii=True, indent=2))


def print_table(
    names: Sequence[str], rows: Iterable[Sequence[object]], *, stretched: str, right: Iterable[str] = ()
) -> None:
    """Print `rows` under `names`, one line each.

    Where the line is too short, the column `stretched` is cut first, with …, then the first one; the others never are.
    """
    cells = [[one_line("" if cell is None else str(cell)) for cell in row] for row in rows]
    screen = console()
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for column, width in zip(names, _widths(names, cells, names.index(stretched), screen.width), strict=True):
        justify: JustifyMethod = "right" if column in right else "left"
        table.add_column(column, width=width, no_wrap=True, overflow="ellipsis", justify=justify)
    for row in cells:
        table.add_row(*map(Text, row))
    screen.print(table)


def _widths(names: Sequence[str], cells: Sequence[Sequence[str]], stretched: int, line: int) -> list[int]:
    """Return how many columns of the screen each column of the table gets."""
    widths = [max(map(cell_len, column)) for column in zip(names, *cells, strict=True)]
    for cut, least in ((stretched, MIN_STRETCHED), (0, MIN_ID)):
        excess = sum(widths) + GAP * (len(widths) - 1) - line
        widths[cut] = max(min(widths[cut], least), widths[cut] - max(0, excess))
    return widths


def title(item: Item) -> str:
    """Return what names an item to people: its name, its text, or what kind of media it is."""
    media = f"({item.media.mime_type or 'media'})" if item.media else ""
    return name(item) or item.text or media


def plain(value: Any) -> Any:
    """Return `value` as JSON takes it: values of the client by field, times in ISO 8601, bytes left out."""
    match value:
        case Error():
            return {"reason": value.reason, "message": str(value), "metadata": value.metadata}
        case datetime():
            return value.isoformat()
        case np.ndarray():
            return value.tolist()
        case Mapping():
            return {str(key): plain(inner) for key, inner in value.items() if not isinstance(inner, bytes)}
        case list() | tuple():
            return [plain(inner) for inner in value]
        case _ if dataclasses.is_dataclass(value):
            return plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
        case _:
            return value
