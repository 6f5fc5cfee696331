"""Metadata by column: the values at one path, of all rows, as arrays that a comparison answers at once.

A column is a list of elements: a scalar is one, a list is one for each scalar in it and one that tells it is there,
so lists and scalars are compared alike. Whole numbers that float64 does not hold exactly, and strings, are kept once
each, in a table that the elements point into; what a comparison says of them is worked out once each, by Python's own
rules.
"""

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.common.filters import ORDERINGS, Operator, Scalar
from services.search.index import Mask, Numbers

PRESENT, BOOLEAN, NUMBER, BIG, STRING = range(5)
EXACT_INTEGERS_UP_TO = 2**53
_ENTRY_BYTES = 100  # of a dictionary and a list, and the code
_FLOAT_MAX = np.finfo(np.float64).max

_ELEMENT = np.dtype([("row", np.int32), ("kind", np.uint8), ("value", np.float64)])


class Distinct:
    """Values kept once each, numbered in order of arrival; it only grows."""

    def __init__(self) -> None:
        self.values: list[str | int] = []
        self.memory_bytes = 0
        self._codes: dict[object, int] = {}

    def code(self, value: str | int) -> int:
        """Return the number of `value`, a new one if it is new."""
        code = self._codes.setdefault(value, len(self._codes))
        if code == len(self.values):
            self.values.append(value)
            self.memory_bytes += sys.getsizeof(value) + _ENTRY_BYTES
        return code

    def code_if_known(self, value: Scalar) -> int | None:
        """Return the number of what equals `value`; None where nothing does."""
        return self._codes.get(value)


@dataclass(frozen=True, slots=True)
class Column:
    """The elements at one path, in no order. It never changes: `updated` returns another.

    `rows[i]` is the row that element i belongs to, `kinds[i]` its kind, `values[i]` the number, 0 or 1 for a boolean,
    or the code of a string or big number.
    """

    rows: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    kinds: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    values: NDArray[np.float64] = field(default_factory=lambda: np.empty(0, np.float64))
    strings: Distinct = field(default_factory=Distinct)
    bigs: Distinct = field(default_factory=Distinct)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the arrays and tables."""
        arrays = self.rows.nbytes + self.kinds.nbytes + self.values.nbytes
        return arrays + self.strings.memory_bytes + self.bigs.memory_bytes

    @property
    def wasteful(self) -> bool:
        """Whether the tables hold mostly values that no element has any more."""
        return len(self.strings.values) + len(self.bigs.values) > 2 * len(self.rows) + 1024

    def updated(self, rows: Numbers, values: Iterable[object]) -> "Column":
        """Return the column with `values` as those of `rows`, in place of what they had."""
        elements = np.array(
            [
                (row, *element)
                for row, value in zip(rows.tolist(), values, strict=True)
                for element in self._elements(value)
            ],
            _ELEMENT,
        )
        kept = ~_marked(rows, self.rows)[self.rows]
        return Column(
            np.concatenate([self.rows[kept], elements["row"]]),
            np.concatenate([self.kinds[kept], elements["kind"]]),
            np.concatenate([self.values[kept], elements["value"]]),
            self.strings,
            self.bigs,
        )

    def rows_where(self, hits: Mask, extent: int) -> Mask:
        """Return for each row below `extent` whether one of its elements is among `hits`."""
        mask = np.zeros(extent, np.bool_)
        rows = self.rows[hits]
        mask[rows[rows < extent]] = True
        return mask

    def present(self, extent: int) -> Mask:
        """Return for each row below `extent` whether it has a value, null being none."""
        return self.rows_where(np.ones(len(self.rows), np.bool_), extent)

    def holding(self, operator: Operator, operands: tuple[Scalar, ...], extent: int) -> Mask:
        """Return for each row below `extent` whether `operator` holds between its value and one of `operands`.

        The negated operators are not among those asked.
        """
        match operator:
            case Operator.EQUAL | Operator.IN:
                hits = self._equal(operands)
            case Operator.STARTS_WITH:
                prefix = str(operands[0])
                hits = self._told(STRING, self.strings, lambda value: str(value).startswith(prefix))
            case _:
                hits = self._ordered(operator, operands[0])
        return self.rows_where(hits, extent)

    def _equal(self, operands: tuple[Scalar, ...]) -> Mask:
        targets: dict[int, list[float]] = {}
        for operand in operands:
            for kind, value in self._targets(operand):
                targets.setdefault(kind, []).append(value)
        hits = np.zeros(len(self.rows), np.bool_)
        for kind, values in targets.items():
            same = self.values == values[0] if len(values) == 1 else np.isin(self.values, values)
            hits |= same & (self.kinds == kind)
        return hits

    def _targets(self, operand: Scalar) -> Iterable[tuple[int, float]]:
        """Yield kind and value of the elements that equal `operand`."""
        if isinstance(operand, bool):
            yield BOOLEAN, float(operand)
            return
        code = (self.strings if isinstance(operand, str) else self.bigs).code_if_known(operand)
        if code is not None:
            yield STRING if isinstance(operand, str) else BIG, code
        if not isinstance(operand, str):
            below, above = _floats_around(operand)
            if below == above:
                yield NUMBER, below

    def _ordered(self, operator: Operator, operand: Scalar) -> Mask:
        compare = ORDERINGS[operator]
        if isinstance(operand, str):
            return self._told(STRING, self.strings, lambda value: compare(value, operand))
        below, above = _floats_around(operand)
        if below == above:
            numbers: Mask = np.asarray(compare(self.values, below))
        elif operator in (Operator.GREATER, Operator.GREATER_OR_EQUAL):
            numbers = self.values >= above
        else:
            numbers = self.values <= below
        hits: Mask = numbers & (self.kinds == NUMBER)
        return hits | self._told(BIG, self.bigs, lambda value: compare(value, operand))

    def _told(self, kind: int, table: Distinct, says: Callable[[str | int], bool]) -> Mask:
        """Return which elements of `kind` point to a value in `table` of which `says` is true."""
        hits = np.zeros(len(self.rows), np.bool_)
        places = np.flatnonzero(self.kinds == kind)
        if len(places):
            said = np.array([says(value) for value in table.values.copy()], np.bool_)
            hits[places] = said[self.values[places].astype(np.int64)]
        return hits

    def _elements(self, value: object) -> Iterable[tuple[int, float]]:
        if isinstance(value, list):
            yield PRESENT, 0.0
            for element in value:
                yield from self._scalars(element)
        elif isinstance(value, Mapping):
            yield PRESENT, 0.0
        else:
            yield from self._scalars(value)

    def _scalars(self, value: object) -> Iterable[tuple[int, float]]:
        match value:
            case bool():
                yield BOOLEAN, float(value)
            case str():
                yield STRING, self.strings.code(value)
            case int() if abs(value) > EXACT_INTEGERS_UP_TO:
                yield BIG, self.bigs.code(value)
            case int() | float():
                yield NUMBER, float(value)


def _marked(rows: Numbers, others: NDArray[np.int32]) -> Mask:
    """Return a table by row that says which are among `rows`, long enough for `others`."""
    table = np.zeros(max(int(rows.max(initial=-1)), int(others.max(initial=-1))) + 1, np.bool_)
    table[rows] = True
    return table


def _floats_around(number: int | float) -> tuple[float, float]:
    """Return the largest float64 not above `number` and the smallest not below it."""
    if isinstance(number, float):
        return number, number
    try:
        near = float(number)
    except OverflowError:
        return (_FLOAT_MAX, math.inf) if number > 0 else (-math.inf, -_FLOAT_MAX)
    if near == number:
        return near, near
    return (near, math.nextafter(near, math.inf)) if near < number else (math.nextafter(near, -math.inf), near)
