"""Cases that cover every pair of values instead of every combination."""

from collections.abc import Iterable, Sequence
from itertools import combinations, product
from typing import Any

Case = tuple[Any, ...]


def covering_pairs(*parameters: Iterable[Any]) -> list[Case]:
    """Return cases, one value for each of `parameters`, in which each two values of two parameters meet.

    Most faults of software take one or two parameters to show: cases that cover all pairs find nearly what the full
    product finds, and are as many as the product of the two parameters with the most values. The same every time:
    of the combinations the one that covers the most pairs not covered yet comes next, the first of equals.

    Source: Kuhn, Wallace & Gallo, "Software fault interactions and implications for software testing", IEEE TSE 2004.
    """
    combined = list(product(*(tuple(values) for values in parameters)))
    missing = {pair for case in combined for pair in _pairs(case)}
    cases = []
    while missing:
        case = max(combined, key=lambda case: len(missing & _pairs(case)))
        missing -= _pairs(case)
        cases.append(case)
    return cases


def _pairs(case: Sequence[Any]) -> set[Case]:
    return set(combinations(enumerate(case), 2))
