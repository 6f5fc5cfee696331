"""Manifests: one row per item, in CSV, JSONL or Parquet, read row by row."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medley.inputs.inputs import BadInputError, Columns, Input, InputError, Inputs
from medley.inputs.metadata import parse_cell
from medley.inputs.rows import ColumnMapping, map_columns, row_to_item

BATCH_ROWS = 128
CSV_FIELD_CHARACTERS = 2**24
HEAD_LINES = 100

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """A row with its number in the file, or the problem that prevents reading it."""

    number: int
    row: Row | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest's columns and lines, its number of rows if it is known, and the conversion of metadata values."""

    columns: tuple[str, ...]
    lines: Iterator[Line]
    total: int | None = None
    convert: Callable[[Any], Any] = lambda value: value


def manifest_inputs(path: Path, columns: Columns) -> Inputs:
    """Return the rows of the manifest at `path` as inputs.

    Raises:
        InputError: it cannot be read, a requested column is missing, or no column looks like an id.
    """
    manifest = READERS[path.suffix.lower()](path)
    mapping = map_columns(columns, manifest.columns, path)
    return Inputs(_inputs(path, manifest, mapping), manifest.total)


def _inputs(path: Path, manifest: Manifest, mapping: ColumnMapping) -> Iterator[Input]:
    for line in manifest.lines:
        name = f"{path.name}:{line.number}"
        if line.row is None:
            yield Input(name, problem=line.problem)
            continue
        try:
            yield Input(name, row_to_item(line.row, mapping, path.parent, manifest.convert))
        except (OSError, BadInputError) as error:
            yield Input(name, problem=str(error))


def _csv(path: Path) -> Manifest:
    csv.field_size_limit(CSV_FIELD_CHARACTERS)
    with _translate_read_errors(path), path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
    columns = next(csv.reader([header], delimiter=delimiter, strict=True), [])
    if duplicates := sorted({column for column in columns if columns.count(column) > 1}):
        raise InputError(f"{path}: the header names {', '.join(map(repr, duplicates))} more than once")
    if not any(columns):
        raise InputError(f"{path}: no header with the names of the columns")
    return Manifest(tuple(columns), _csv_lines(path, delimiter), convert=_convert_cell)


def _csv_lines(path: Path, delimiter: str) -> Iterator[Line]:
    with _translate_read_errors(path), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        columns = next(reader)
        for cells in reader:
            if len(cells) == len(columns):
                yield Line(reader.line_num, dict(zip(columns, cells, strict=True)))
            elif cells:
                yield Line(reader.line_num, problem=f"the row has {len(cells)} cells, the header {len(columns)}")


def _convert_cell(value: Any) -> Any:
    return parse_cell(value) if isinstance(value, str) else value


def _jsonl(path: Path) -> Manifest:
    columns: dict[str, None] = {}
    for line in _take(_jsonl_lines(path), HEAD_LINES):
        columns.update(dict.fromkeys(line.row or ()))
    return Manifest(tuple(columns), _jsonl_lines(path))


def _jsonl_lines(path: Path) -> Iterator[Line]:
    with _translate_read_errors(path), path.open(encoding="utf-8-sig") as file:
        for number, text in enumerate(file, start=1):
            if text.strip():
                yield _jsonl_line(number, text)


def _jsonl_line(number: int, text: str) -> Line:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Line(number, problem=f"not JSON: {error}")
    return Line(number, row) if isinstance(row, dict) else Line(number, problem="not a JSON object")


def _parquet(path: Path) -> Manifest:
    import pyarrow as pa  # noqa: PLC0415  # only here, and slow to load
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file: {_first_line(error)}") from error
    return Manifest(tuple(file.schema_arrow.names), _parquet_lines(path, file), file.metadata.num_rows)


def _parquet_lines(path: Path, file: Any) -> Iterator[Line]:
    import pyarrow as pa  # noqa: PLC0415  # only here, and slow to load

    number = 0
    with file:
        try:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield Line(number, row)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: cannot be read after row {number}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _take(lines: Iterable[Line], count: int) -> Iterator[Line]:
    return (line for _, line in zip(range(count), lines, strict=False))


@contextmanager
def _translate_read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start} of a block") from error
    except csv.Error as error:
        raise InputError(f"{path}: invalid CSV: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


READERS: Mapping[str, Callable[[Path], Manifest]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}
