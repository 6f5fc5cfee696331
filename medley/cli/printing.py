"""How answers look: tables for people, JSON for programs, complaints on stderr."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medley.errors import Error
from medley.values import Item

WIDTH = 80
ID_CHARACTERS = 32


def console(*, stderr: bool = False) -> Console:
    """Return what prints tables: as wide as the terminal, or 80 columns where there is none, then without colours."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else WIDTH)


def complain(problem: str) -> None:
    """Print one line on stderr."""
    click.echo(f"medley: {printable(problem)}", err=True)


def print_json(value: Any) -> None:
    """Print `value`, maybe made of the client's values, as JSON."""
    click.echo(json.dumps(plain(value), ensure_ascii=True, indent=2))


def print_table(columns: Mapping[str, Any], rows: Iterable[Sequence[object]]) -> None:
    """Print `rows` under `columns`, name to options of rich's; cells are cut with … rather than wrapped."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name, options in columns.items():
        table.add_column(name, no_wrap=True, overflow="ellipsis", **options)
    for row in rows:
        table.add_row(*(Text(one_line("" if cell is None else str(cell))) for cell in row))
    console().print(table)


def one_line(text: str) -> str:
    """Return `text` on one line, without control characters."""
    return "".join(character for character in " ".join(printable(text).split()) if character.isprintable())


def printable(text: str) -> str:
    """Return `text` with what no output takes replaced: file names need not be Unicode."""
    return text.encode("utf-8", "replace").decode()


def shortened(text: str, characters: int) -> str:
    """Return `text` cut to so many characters, with … where something is missing."""
    line = one_line(text)
    return line if len(line) <= characters else f"{line[: characters - 1]}…"


def title(item: Item) -> str:
    """Return what names an item to people: its name or title, its text, or what kind of media it is."""
    metadata = item.metadata or {}
    named = next((value for key in ("name", "title") if isinstance(value := metadata.get(key), str) and value), None)
    media = f"({item.media.mime_type or 'media'})" if item.media else ""
    return named or item.text or media


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
