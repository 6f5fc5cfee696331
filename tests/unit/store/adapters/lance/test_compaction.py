from services.store.adapters.lance.compaction import FRAGMENT_ROWS, Fragment, select_fragments


def fragments(*rows: int) -> list[Fragment]:
    return [Fragment(number, count, 0) for number, count in enumerate(rows)]


def test_a_few_small_ones_are_left() -> None:
    assert select_fragments(fragments(100_000, 1, 1, 1)) == set()


def test_many_small_ones_are_merged_without_the_large_one() -> None:
    assert select_fragments(fragments(100_000, *[1] * 8)) == set(range(1, 9))


def test_a_large_one_is_taken_once_the_small_ones_weigh_as_much() -> None:
    assert select_fragments(fragments(8000, *[1000] * 8)) == set(range(9))


def test_middling_ones_are_merged_past_a_few_tiny_ones() -> None:
    assert select_fragments(fragments(1, 1, *[4000] * 8)) == set(range(2, 10))


def test_one_merge_is_bounded() -> None:
    rows = FRAGMENT_ROWS // 4
    assert len(select_fragments(fragments(*[rows] * 100))) * rows <= 2 * FRAGMENT_ROWS + rows


def test_full_ones_are_left() -> None:
    assert select_fragments(fragments(*[FRAGMENT_ROWS] * 20)) == set()


def test_what_is_largely_deleted_is_rewritten() -> None:
    assert select_fragments([Fragment(0, FRAGMENT_ROWS, FRAGMENT_ROWS // 5), Fragment(1, FRAGMENT_ROWS, 9)]) == {0}


def test_rewriting_grows_with_the_logarithm() -> None:
    table: list[int] = []
    rewritten = 0
    for _ in range(20_000):
        table.append(1)
        chosen = select_fragments(fragments(*table))
        if chosen:
            merged = sum(table[number] for number in chosen)
            rewritten += merged
            table = [rows for number, rows in enumerate(table) if number not in chosen] + [merged]
    assert rewritten / 20_000 < 150, "below 1,024 rows fragments are merged each time; from there on ever more rarely"
