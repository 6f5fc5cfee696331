"""Text for people: printable, on one line, shortened; names of items."""

from medley.values import Item

NAMES = ("name", "title")


def printable(text: str) -> str:
    """Return `text` without lone surrogates, which file names may contain and outputs refuse."""
    return text.encode("utf-8", "replace").decode()


def one_line(text: str) -> str:
    """Return `text` on one line, without control characters."""
    return "".join(character for character in " ".join(printable(text).split()) if character.isprintable())


def shorten(text: str, characters: int) -> str:
    """Return `text` on one line of at most `characters`, ending in … if it is cut."""
    line = one_line(text)
    return line if len(line) <= characters else f"{line[: characters - 1]}…"


def item_name(item: Item) -> str | None:
    """Return the name or title in an item's metadata, None if there is none."""
    metadata = item.metadata or {}
    return next((value for key in NAMES if isinstance(value := metadata.get(key), str) and value), None)
