"""Parses numbers and spaces as people write them."""

import re

_MULTIPLES = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9}
MAX_ITEMS = 10**12
MAX_DIMENSIONS = 4096


def parse_count(text: str) -> int:
    """Return the number that `text` means: 250000, 250k, 1.5M, 1B.

    Raises:
        ValueError: it is not a number, or not 1 to 10^12.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMBG]?)", text.strip().replace("_", "").upper())
    if not found:
        raise ValueError(f"{text!r} is not a number of items: write it like 250000, 250k, 1.5M or 1B")
    number = round(float(found[1]) * _MULTIPLES[found[2]])
    if not 1 <= number <= MAX_ITEMS:
        raise ValueError(f"{text!r} items: must be 1 to {MAX_ITEMS:,}")
    return number


def parse_spaces(text: str) -> dict[str, int]:
    """Return the dimensions of each space that `text` names: clip:512,text:384.

    Raises:
        ValueError: it is not such a list, a name is repeated, or dimensions are not 1 to 4096.
    """
    spaces: dict[str, int] = {}
    for part in text.split(","):
        name, colon, dimensions = (piece.strip() for piece in part.partition(":"))
        if not (name and colon and dimensions.isascii() and dimensions.isdigit()):
            raise ValueError(f"space {part!r}: write each as name:dimensions, like clip:512,text:384")
        if name in spaces:
            raise ValueError(f"space {name!r} is repeated")
        if not 1 <= int(dimensions) <= MAX_DIMENSIONS:
            raise ValueError(f"space {name!r}: dimensions {dimensions} must be 1 to {MAX_DIMENSIONS}")
        spaces[name] = int(dimensions)
    return spaces
