"""The metadata of a collection's rows, and the filters they satisfy."""

import json
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from services.common.filters import NEGATIONS, AllOf, AnyOf, Comparison, Exists, Filter, Not, Path, value_at
from services.search.collection.column import Column
from services.search.core.vector_index import Mask, Numbers

MAX_COLUMNS = 64
PARSE_BATCH_SIZE = 1024
_POINTER_BYTES = 8


class MetadataColumns:
    """Metadata by row, as JSON; a column is made when a filter first asks for it, and kept up to date from then on.

    Rows are written in rounds, numbered upwards, by one writer. A filter is evaluated as of a round: what it says of
    the rows written up to there holds, also while the writer writes other rows. Filters may be evaluated in any
    thread.
    """

    def __init__(self) -> None:
        self._json: list[str] = []
        self._json_bytes = 0
        self._round_of_row: NDArray[np.int64] = np.empty(0, np.int64)
        self._columns: OrderedDict[Path, tuple[int, Column]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def memory_bytes(self) -> int:
        """Bytes of the JSON and of the columns."""
        with self._lock:
            columns = sum(column.memory_bytes for _, column in self._columns.values())
        return columns + self._round_of_row.nbytes + self._json_bytes

    def write(self, rows: Numbers, metadata: Sequence[str], round_number: int) -> None:
        """Keep the JSON object metadata[i], "" meaning the empty one, as that of rows[i]."""
        self._reserve(int(rows.max(initial=-1)) + 1)
        for row, text in zip(rows.tolist(), metadata, strict=True):
            self._put(row, "" if text == "{}" else text)
        self._round_of_row[rows] = round_number

    def release(self, rows: Numbers) -> None:
        """Give the metadata of `rows` up."""
        for row in rows.tolist():
            self._put(row, "")

    def of(self, rows: Numbers) -> list[str]:
        """Return the JSON of `rows`, "" for the empty object."""
        return list(map(self._json.__getitem__, rows.tolist()))

    def matches(self, condition: Filter, extent: int, round_number: int) -> Mask:
        """Return for each row below `extent` whether its metadata satisfies `condition`, as of `round_number`.

        It agrees with `services.common.filters.matches`.
        """
        paths = dict.fromkeys(_paths(condition))
        return _evaluate(condition, dict(zip(paths, self._current(list(paths), round_number), strict=True)), extent)

    def _current(self, paths: Sequence[Path], round_number: int) -> list[Column]:
        """Return the columns of `paths`, with everything written up to `round_number`."""
        with self._lock:
            made = {path: self._round_of(path) for path in paths}  # asked once: asked again, it may drop a column
            for since in set(made.values()):
                if since < round_number:
                    self._catch_up([path for path in paths if made[path] == since], since, round_number)
            columns = [self._columns[path][1] for path in paths]
            for path in paths:
                self._columns.move_to_end(path)
            while len(self._columns) > max(MAX_COLUMNS, len(paths)):
                self._columns.popitem(last=False)
        return columns

    def _catch_up(self, paths: Sequence[Path], since: int, round_number: int) -> None:
        rounds = self._round_of_row
        rows = np.flatnonzero(rounds > since)
        columns = [self._columns.get(path, (since, Column()))[1] for path in paths]
        values: list[list[object]] = [[] for _ in paths]
        for begin in range(0, len(rows), PARSE_BATCH_SIZE):
            read = _parse([self._json[row] for row in rows[begin : begin + PARSE_BATCH_SIZE].tolist()])
            for path, column_values in zip(paths, values, strict=True):
                column_values.extend(value_at(path, metadata) for metadata in read)
        for path, column, column_values in zip(paths, columns, values, strict=True):
            self._columns[path] = (round_number, column.with_values(rows, column_values))

    def _round_of(self, path: Path) -> int:
        """Return the round up to which the column of `path` is made; -1 where there is none worth keeping."""
        since, column = self._columns.get(path, (-1, None))
        if column is not None and column.wasteful:
            del self._columns[path]
            return -1
        return since

    def _put(self, row: int, text: str) -> None:
        self._json_bytes += _size(text) - _size(self._json[row])
        self._json[row] = text

    def _reserve(self, extent: int) -> None:
        missing = extent - len(self._json)
        if missing <= 0:
            return
        self._json.extend([""] * missing)
        self._json_bytes += _POINTER_BYTES * missing
        if extent > len(self._round_of_row):
            grown = np.full(max(extent, len(self._round_of_row) * 5 // 4), -1, np.int64)
            grown[: len(self._round_of_row)] = self._round_of_row
            self._round_of_row = grown


def _size(text: str) -> int:
    return sys.getsizeof(text) if text else 0  # the empty string is shared


def _parse(texts: Sequence[str]) -> Sequence[Mapping[str, object]]:
    """Return the objects of `texts`, parsed together, which takes half the time."""
    read: Sequence[Mapping[str, object]] = json.loads(f"[{','.join(metadata or '{}' for metadata in texts)}]")
    return read


def _paths(condition: Filter) -> list[Path]:
    match condition:
        case AllOf(filters) | AnyOf(filters):
            return [path for child in filters for path in _paths(child)]
        case Not(child):
            return _paths(child)
        case Comparison(path) | Exists(path):
            return [path]


def _evaluate(condition: Filter, columns: Mapping[Path, Column], extent: int) -> Mask:
    match condition:
        case AllOf(filters):
            return reduce(np.bitwise_and, [_evaluate(child, columns, extent) for child in filters], _all(extent))
        case AnyOf(filters):
            return reduce(np.bitwise_or, [_evaluate(child, columns, extent) for child in filters], ~_all(extent))
        case Not(child):
            return ~_evaluate(child, columns, extent)
        case Exists(path, exists):
            present = columns[path].present(extent)
            return present if exists else ~present
        case Comparison(path, operator, operands) if operator in NEGATIONS:
            return ~columns[path].matching(NEGATIONS[operator], operands, extent)
        case Comparison(path, operator, operands):
            return columns[path].matching(operator, operands, extent)


def _all(extent: int) -> Mask:
    return np.ones(extent, np.bool_)
