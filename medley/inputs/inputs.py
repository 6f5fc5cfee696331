"""Inputs of an ingest."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from medley.values import NewItem


class InputError(Exception):
    """The source of inputs cannot be read; the message says why."""


class BadInputError(Exception):
    """One input cannot be ingested; the message says why."""


@dataclass(frozen=True, slots=True)
class Input:
    """An item to ingest, or the `problem` that prevents it; `name` is its path or line in the source."""

    name: str
    item: NewItem | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs, iterable once, and their number if it is known."""

    iterator: Iterator[Input] = field(repr=False)
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of a manifest's columns; a column that is None is guessed by name.

    `metadata` names the columns that become metadata; None stands for all other columns.
    """

    id: str | None = None
    text: str | None = None
    image: str | None = None
    metadata: tuple[str, ...] | None = None
