from pathlib import Path

import pytest

from benchmarks.report import marks, table, write


def test_only_what_is_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    mine, other = marks("mine"), marks("mine --other")
    page.write_text(f"before\n{mine[0]}\nold\n{mine[1]}\nmiddle\n{other[0]}\nkept\n{other[1]}\nafter\n")
    write(page, mine, "new\n")
    write(page, mine, "newer\n")
    assert page.read_text() == f"before\n{mine[0]}\nnewer\n{mine[1]}\nmiddle\n{other[0]}\nkept\n{other[1]}\nafter\n"


def test_a_page_without_the_marks_is_refused_and_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no marks\n")
    with pytest.raises(ValueError, match="lacks the marks"):
        write(page, marks("mine"), "new\n")
    assert page.read_text() == "no marks\n"


def test_a_table_has_a_line_a_row() -> None:
    assert table(("", "a"), [("x", "1"), ("y", "")]) == "|  | a |\n| --- | --- |\n| x | 1 |\n| y |  |"
