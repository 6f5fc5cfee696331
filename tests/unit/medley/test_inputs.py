import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medley.inputs import BadInputError, Columns, Input, InputError, open_inputs
from medley.inputs.metadata import parse_cell, to_metadata
from medley.values import NewItem

GUESSED = Columns()


def read(path: Path, columns: Columns = GUESSED) -> list[Input]:
    return list(open_inputs(path, columns).iterator)


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_folders_pictures_take_their_captions_and_texts_stand_alone(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/c.PNG", "a/c.json", "note.md", ".hidden.jpg", ".git/x.jpg", "other.pdf"):
        written(tmp_path / name, "")
    written(tmp_path / "b.txt", "\ufeffA cat.\n")
    written(tmp_path / "note.md", "# Tea")
    written(tmp_path / "a/c.json", json.dumps({"text": "A dog", "metadata": {"age": 3}, "breed": "pug"}))
    inputs = open_inputs(tmp_path, GUESSED)
    items = {given.name: given.item for given in inputs.iterator}
    assert items == {
        "b.jpg": NewItem("b.jpg", "A cat.", tmp_path / "b.jpg"),
        "note.md": NewItem("note.md", "# Tea"),
        "a/c.PNG": NewItem("a/c.PNG", "A dog", tmp_path / "a/c.PNG", {"age": 3, "breed": "pug"}),
    }
    assert inputs.total == 3


def test_a_folder_without_anything_to_ingest_says_what_it_wants(tmp_path: Path) -> None:
    written(tmp_path / "a.pdf", "")
    with pytest.raises(InputError, match=r"no pictures .*\.jpg.* no texts"):
        open_inputs(tmp_path, GUESSED)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [("a.txt", b"\xff\xfe", "not UTF-8"), ("p.json", "{", "Expecting"), ("p.json", '{"text": 3}', "must be a string")],
)
def test_a_file_that_cannot_be_read_is_a_failed_input(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    written(tmp_path / "p.jpg", "")
    written(tmp_path / name, content)
    assert [problem in given.problem for given in read(tmp_path) if given.item is None] == [True]


def test_a_csv_row_is_an_item_with_typed_metadata(tmp_path: Path) -> None:
    path = written(
        tmp_path / "m.csv", '\ufeffID;caption;image;price;zip;stock;new\r\n1;"a;b\nc";p/x.jpg;1.5;00123;;TRUE\r\n'
    )
    assert read(path) == [
        Input("m.csv:3", NewItem("1", "a;b\nc", tmp_path / "p/x.jpg", {"price": 1.5, "zip": "00123", "new": True}))
    ]


def test_a_csv_row_of_another_length_fails_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "m.csv", "id,text\n1,a\n2\n3,c,d\n\n4,e\n")
    assert [(given.name, given.item is None) for given in read(path)] == [
        ("m.csv:2", False),
        ("m.csv:3", True),
        ("m.csv:4", True),
        ("m.csv:6", False),
    ]


def test_columns_may_be_named(tmp_path: Path) -> None:
    path = written(tmp_path / "m.csv", "sku,id,words,a,b\nx,1,hello,2,3\n")
    columns = Columns(id="sku", text="words", metadata=("b", "id"))
    assert read(path, columns) == [Input("m.csv:2", NewItem("x", "hello", None, {"id": 1, "b": 3}))]


@pytest.mark.parametrize(
    ("content", "columns", "problem"),
    [
        ("number,text\n", GUESSED, "--id-column, there are number, text"),
        ("id,price\n", GUESSED, "--text-column or --image-column"),
        ("id,text\n", Columns(image="foto"), "no column 'foto'; there are id, text"),
        ("", GUESSED, "no header"),
    ],
)
def test_a_manifest_without_the_columns_it_needs_says_so(
    tmp_path: Path, content: str, columns: Columns, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        open_inputs(written(tmp_path / "m.csv", content), columns)


def test_a_csv_that_ends_inside_quotes_is_refused_where_it_does(tmp_path: Path) -> None:
    path = written(tmp_path / "m.csv", 'id,text\n1,"unterminated\n2,b\n')
    with pytest.raises(InputError, match="invalid CSV"):
        read(path)


def test_a_header_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'text' more than once"):
        open_inputs(written(tmp_path / "m.csv", "id,text,text\n1,a,b\n"), GUESSED)


def test_json_too_deep_to_read_fails_its_line(tmp_path: Path) -> None:
    line = '{"id": "1", "v": ' + "[" * 5000
    bad, good = read(written(tmp_path / "m.jsonl", f'{line}\n{{"id": "2", "text": "b"}}\n'))
    assert "not JSON" in bad.problem
    assert good.item == NewItem("2", "b")


def test_a_jsonl_line_is_an_item_or_fails_alone(tmp_path: Path) -> None:
    rows = [
        '{"id": 1, "text": "a", "metadata": {"x": [1, null]}, "y": NaN}',
        "{",
        "[]",
        "",
        '{"id": null}',
        '{"id": "2"}',
    ]
    given = read(written(tmp_path / "m.jsonl", "\n".join(rows)))
    assert given[0] == Input("m.jsonl:1", NewItem("1", "a", None, {"x": [1, None]}))
    assert [(each.name, each.item is None) for each in given[1:]] == [
        ("m.jsonl:2", True),
        ("m.jsonl:3", True),
        ("m.jsonl:5", True),
        ("m.jsonl:6", False),
    ]


def test_a_url_is_no_picture(tmp_path: Path) -> None:
    (given,) = read(written(tmp_path / "m.jsonl", '{"id": 1, "image": "https://example.org/a.jpg"}'))
    assert "only files are read" in given.problem


def test_a_parquet_file_is_read_with_its_own_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": [7, 8],
            "text": ["a", None],
            "image": [{"bytes": b"jpeg", "path": None}, {"bytes": None, "path": "x.jpg"}],
            "price": [Decimal("1.50"), Decimal("2.00")],
            "day": [date(2024, 1, 2), None],
            "score": [float("nan"), 1.5],
        }
    )
    pq.write_table(table, tmp_path / "m.parquet", row_group_size=1)
    inputs = open_inputs(tmp_path / "m.parquet", GUESSED)
    assert inputs.total == 2
    assert list(inputs.iterator) == [
        Input("m.parquet:1", NewItem("7", "a", b"jpeg", {"price": 1.5, "day": "2024-01-02"})),
        Input("m.parquet:2", NewItem("8", None, tmp_path / "x.jpg", {"price": 2, "score": 1.5})),
    ]


def test_a_parquet_file_is_read_batch_by_batch(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": range(1000), "text": ["t"] * 1000}), tmp_path / "m.parquet", row_group_size=100)
    inputs = open_inputs(tmp_path / "m.parquet", GUESSED).iterator
    assert next(inputs).item == NewItem("0", "t")
    assert sum(1 for _ in inputs) == 999


@pytest.mark.parametrize("content", [b"", b"PAR1 but nothing else", b"PAR1PAR1PAR1"])
def test_a_broken_parquet_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match="not a readable Parquet"):
        open_inputs(written(tmp_path / "m.parquet", content), GUESSED)


def test_a_parquet_file_broken_further_on_says_where(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    texts = [f"{number} {'x' * 500}" for number in range(1000)]
    pq.write_table(pa.table({"id": range(1000), "text": texts}), path, row_group_size=200, compression="none")
    content = bytearray(path.read_bytes())
    content[300_000:310_000] = b"\xff" * 10_000
    path.write_bytes(content)
    with pytest.raises(InputError, match="after row"):
        read(path)


def test_other_files_are_no_manifests(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file"):
        open_inputs(tmp_path / "nowhere", GUESSED)
    with pytest.raises(InputError, match=r"\.csv, .*\.parquet"):
        open_inputs(written(tmp_path / "m.xlsx", ""), GUESSED)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("12", 12),
        ("-3.50", -3.5),
        ("007", "007"),
        ("1e5", "1e5"),
        ("1234567890123456789", "1234567890123456789"),
        ("false", False),
        ("  ", None),
        ("NaN", "NaN"),
        ("2024-01-02", "2024-01-02"),
        (" 5", " 5"),
    ],
)
def test_a_cell_is_what_it_plainly_says(cell: str, value: object) -> None:
    assert parse_cell(cell) == value
    assert type(parse_cell(cell)) is type(value)


def test_metadata_leave_out_what_is_missing_and_spell_times() -> None:
    row = {"none": None, "nan": float("nan"), "at": datetime(2024, 1, 2, tzinfo=UTC), "in": {"d": [date(2024, 1, 2)]}}
    assert to_metadata(row) == {"at": "2024-01-02T00:00:00+00:00", "in": {"d": ["2024-01-02"]}}


@pytest.mark.parametrize("value", [float("inf"), b"bytes", [{"deep": float("-inf")}], object()])
def test_metadata_that_json_cannot_say_are_refused_by_column(value: object) -> None:
    with pytest.raises(BadInputError, match="column 'x"):
        to_metadata({"x": value})
