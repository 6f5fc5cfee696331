"""Which fragments of a table to merge."""

from collections.abc import Sequence
from dataclasses import dataclass

FRAGMENT_ROWS = 128 * 1024
SMALL_FRAGMENTS = 8
SMALL_ROWS = 1024
MUCH_DELETED = 0.1


@dataclass(frozen=True, slots=True)
class Fragment:
    """A file of rows, some of them deleted since it was written."""

    number: int
    rows: int
    deletions: int


def worth_merging(fragments: Sequence[Fragment]) -> set[int]:
    """Return the numbers of the fragments to rewrite; none while that would gain little.

    Those are, once there are several, the smallest, up to one larger than all before it together: a row is then
    rewritten a number of times that grows only with the logarithm of the table. And those with much deleted.
    """
    small = _smallest([fragment for fragment in fragments if fragment.rows < FRAGMENT_ROWS])
    chosen = {fragment.number for fragment in fragments if fragment.deletions > MUCH_DELETED * fragment.rows}
    return chosen | set(small) if len(small) >= SMALL_FRAGMENTS else chosen


def _smallest(fragments: Sequence[Fragment]) -> list[int]:
    total, chosen = 0, []
    for fragment in sorted(fragments, key=lambda fragment: fragment.rows):
        if fragment.rows > max(SMALL_ROWS, total):
            break
        total += fragment.rows
        chosen.append(fragment.number)
    return chosen
