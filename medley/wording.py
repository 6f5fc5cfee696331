"""Text for people: on one line, printable, and items by the names they have."""

from medley.values import Item

NAMES = ("name", "title")


def printable(text: str) -> str:
    """Return `text` with what no output takes replaced: file names need not be Unicode."""
    return text.encode("utf-8", "replace").decode()


def one_line(text: str) -> str:
    """Return `text` on one line, without control characters."""
    return "".join(character for character in " ".join(printable(text).split()) if character.isprintable())


def shortened(text: str, characters: int) -> str:
    """Return `text` on one line of so many characters, with … where something is missing."""
    line = one_line(text)
    return line if len(line) <= characters else f"{line[: characters - 1]}…"


def name(item: Item) -> str | None:
    """Return the name or title that an item's metadata give it."""
    metadata = item.metadata or {}
    return next((value for key in NAMES if isinstance(value := metadata.get(key), str) and value), None)
