"""Writes tables in Markdown between marks of a page."""

from collections.abc import Iterable, Sequence
from pathlib import Path


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def marks(writer: str) -> tuple[str, str]:
    """Return the marks in a page between which `writer` writes."""
    return f"<!-- {writer} writes from here -->", f"<!-- {writer} writes to here -->"


def write(page: Path, between: tuple[str, str], text: str) -> None:
    """Replace the text between two marks of `page`."""
    before, begin, rest = page.read_text().partition(between[0])
    _, end, after = rest.partition(between[1])
    if not begin or not end:
        raise ValueError(f"{page} lacks the marks {between[0]!r} and {between[1]!r}")
    page.write_text(f"{before}{between[0]}\n{text}{between[1]}{after}")
