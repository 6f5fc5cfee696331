"""Cases that are said to cover all pairs do."""

from itertools import combinations, product

import pytest

from tests.contract.pairs import covering_pairs


@pytest.mark.parametrize("sizes", [(2, 2), (3, 9, 4), (4, 1, 3), (3, 3, 3, 3, 5)])
def test_every_two_values_meet(sizes: tuple[int, ...]) -> None:
    cases = covering_pairs(*(range(size) for size in sizes))
    for one, other in combinations(range(len(sizes)), 2):
        met = {(case[one], case[other]) for case in cases}
        assert met == set(product(range(sizes[one]), range(sizes[other])))
    largest, second = sorted(sizes)[-1:-3:-1]
    assert len(cases) <= 1.5 * largest * second
