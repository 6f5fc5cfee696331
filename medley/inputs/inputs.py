"""One input of an ingest."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from medley.values import NewItem


class InputError(Exception):
    """Nothing can be ingested from here; the message says why."""


class BadInputError(Exception):
    """One input cannot become an item; the message says why."""


@dataclass(frozen=True, slots=True)
class Input:
    """An item to ingest, or the `problem` that keeps it from being one; `name` says where it stands."""

    name: str
    item: NewItem | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs, drawn once, and how many there are, where that is known beforehand."""

    each: Iterator[Input] = field(repr=False)
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a manifest mean what; None leaves it to a guess by name.

    `metadata` names those that become metadata; None takes all that are nothing else.
    """

    id: str | None = None
    text: str | None = None
    image: str | None = None
    metadata: tuple[str, ...] | None = None
