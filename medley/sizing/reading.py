"""Numbers and spaces as people write them."""

import re

_MULTIPLES = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9}
MOST_ITEMS = 10**12
MOST_DIMENSIONS = 4096


def read_count(written: str) -> int:
    """Return the number that `written` means: 250000, 250k, 1.5M, 1B.

    Raises:
        ValueError: it is none, or not 1 to 10^12.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMBG]?)", written.strip().replace("_", "").upper())
    if not found:
        raise ValueError(f"{written!r} is no number of items: write it like 250000, 250k, 1.5M or 1B")
    number = round(float(found[1]) * _MULTIPLES[found[2]])
    if not 1 <= number <= MOST_ITEMS:
        raise ValueError(f"{written!r} items: must be 1 to {MOST_ITEMS:,}")
    return number


def read_spaces(written: str) -> dict[str, int]:
    """Return the dimensions of each space that `written` names: clip:512,text:384.

    Raises:
        ValueError: it is no such list, a name comes twice, or dimensions are not 1 to 4096.
    """
    spaces: dict[str, int] = {}
    for part in written.split(","):
        name, colon, dimensions = (piece.strip() for piece in part.partition(":"))
        if not (name and colon and dimensions.isascii() and dimensions.isdigit()):
            raise ValueError(f"space {part!r}: write each as name:dimensions, like clip:512,text:384")
        if name in spaces:
            raise ValueError(f"space {name!r} comes twice")
        if not 1 <= int(dimensions) <= MOST_DIMENSIONS:
            raise ValueError(f"space {name!r}: dimensions {dimensions} must be 1 to {MOST_DIMENSIONS}")
        spaces[name] = int(dimensions)
    return spaces
