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

    Those are, once there are several, small ones of about one size, none larger than all before it together: a row is
    then rewritten a number of times that grows only with the logarithm of the table. And those with much deleted.
    """
    deleted = {fragment.number for fragment in fragments if fragment.deletions > MUCH_DELETED * fragment.rows}
    return deleted | _small([fragment for fragment in fragments if fragment.rows < FRAGMENT_ROWS // 2])


def _small(fragments: Sequence[Fragment]) -> set[int]:
    chosen, total = set[int](), 0
    for fragment in sorted(fragments, key=lambda fragment: fragment.rows):
        if fragment.rows > max(SMALL_ROWS, total) or total > FRAGMENT_ROWS:
            if len(chosen) >= SMALL_FRAGMENTS:
                break
            chosen, total = set(), 0
        chosen.add(fragment.number)
        total += fragment.rows
    return chosen if len(chosen) >= SMALL_FRAGMENTS else set()
