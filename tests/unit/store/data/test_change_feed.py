import numpy as np

from services.store.core.table import ChangedRows, VectorColumn
from services.store.data.change_feed import split_changes


def rows(*metadata_bytes: int) -> ChangedRows:
    count = len(metadata_bytes)
    values = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    column = VectorColumn(values, np.ones(count, np.bool_))
    return ChangedRows(
        [f"{i}" for i in range(count)], ["m" * size for size in metadata_bytes], {"own": column}, ["gone"]
    )


def test_parts_stay_under_the_limit_and_keep_everything_in_order() -> None:
    cut = list(split_changes(rows(50, 50, 50, 50, 50), max_bytes=130))
    assert [list(each.ids) for each in cut] == [["0", "1"], ["2", "3"], ["4"]]
    assert [list(each.deleted_ids) for each in cut] == [[], [], ["gone"]]
    assert np.concatenate([each.vectors["own"].values for each in cut]).tolist() == [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7],
        [8, 9],
    ]


def test_a_row_over_the_limit_goes_alone() -> None:
    assert [list(each.ids) for each in split_changes(rows(1, 999, 1), max_bytes=100)] == [["0"], ["1"], ["2"]]


def test_removals_alone_are_a_part() -> None:
    (only,) = split_changes(rows(), max_bytes=10)
    assert (list(only.ids), list(only.deleted_ids)) == ([], ["gone"])
