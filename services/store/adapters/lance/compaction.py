"""Which fragments of a table to merge."""

from collections.abc import Sequence
from dataclasses import dataclass

FRAGMENT_ROWS = 128 * 1024
MIN_SMALL_FRAGMENTS = 8
SMALL_ROWS = 1024
MAX_DELETED_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Fragment:
    """A file of rows, some of them deleted since it was written."""

    number: int
    rows: int
    deletions: int


def select_fragments(fragments: Sequence[Fragment]) -> set[int]:
    """Return the numbers of the fragments to rewrite; none while that would gain little.

    Those with many deleted rows, and small ones once there are several of about one size, none larger than all smaller
    ones together: so a row is rewritten a number of times that grows with the logarithm of the table's size.
    """
    deleted = {fragment.number for fragment in fragments if fragment.deletions > MAX_DELETED_SHARE * fragment.rows}
    return deleted | _select_small([fragment for fragment in fragments if fragment.rows < FRAGMENT_ROWS // 2])


def _select_small(fragments: Sequence[Fragment]) -> set[int]:
    chosen, total = set[int](), 0
    for fragment in sorted(fragments, key=lambda fragment: fragment.rows):
        if fragment.rows > max(SMALL_ROWS, total) or total > FRAGMENT_ROWS:
            if len(chosen) >= MIN_SMALL_FRAGMENTS:
                break
            chosen, total = set(), 0
        chosen.add(fragment.number)
        total += fragment.rows
    return chosen if len(chosen) >= MIN_SMALL_FRAGMENTS else set()
