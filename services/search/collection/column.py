"""Metadata by column: the values at one path, of all rows, as arrays that a comparison answers at once.

A column is a list of elements: a scalar is one, a list is one for each scalar in it and one that tells it is there,
so lists and scalars are compared alike. Whole numbers that float64 does not hold exactly, and strings, are kept once
each, in a table that the elements point into; what a comparison says of them is worked out once each, by Python's own
rules.
"""

import math
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.common.filters import ORDERINGS, Operator, Scalar
from services.search.core.vector_index import Mask, Numbers

PRESENT, BOOLEAN, NUMBER, BIG, STRING = range(5)
MAX_EXACT_INTEGER = 2**53
_ENTRY_BYTES = 120  # of a dictionary, lists and arrays, and the code
_FLOAT_MAX = np.finfo(np.float64).max

_KINDS = {bool: BOOLEAN, str: STRING, int: NUMBER, float: NUMBER}
MAX_UNSORTED_SHARE = 1 / 8
MAX_UNSORTED = 1024


@dataclass(frozen=True, slots=True)
class _SortedValues:
    """Values in their order, and their numbers."""

    values: Sequence[Any]
    numbers: Numbers


class ValueDictionary:
    """Values of one type kept once each, numbered in order of arrival; it only grows.

    One writer; a question may be asked at any time, by any number of threads. What was there when most of the values
    were last sorted is found by halving, the rest one by one.
    """

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.memory_bytes = 0
        self._codes: dict[object, int] = {}
        self._sorted = _SortedValues([], np.empty(0, np.int64))

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

    def comparison_mask(self, operator: Operator, operand: Any) -> Mask:
        """Return for each number whether its value is on the side of `operand` that `operator` asks for."""
        order = self._order()
        left, right = bisect_left(order.values, operand), bisect_right(order.values, operand)
        spans = {
            Operator.LESS: (0, left),
            Operator.LESS_OR_EQUAL: (0, right),
            Operator.GREATER: (right, len(order.values)),
            Operator.GREATER_OR_EQUAL: (left, len(order.values)),
        }
        compare = ORDERINGS[operator]
        return self._mask(order, spans[operator], lambda value: compare(value, operand))

    def prefix_mask(self, prefix: str) -> Mask:
        """Return for each number whether its value, a string, starts with `prefix`."""
        order = self._order()
        begin = bisect_left(order.values, prefix)
        end = bisect_left(order.values, True, lo=begin, key=lambda value: not value.startswith(prefix))
        return self._mask(order, (begin, end), lambda value: value.startswith(prefix))

    def _mask(self, order: _SortedValues, span: tuple[int, int], matches: Callable[[Any], bool]) -> Mask:
        """Return a mask by number: what lies in `span` of `order`, and what has come since and `matches` is true of."""
        unsorted = self.values[len(order.values) :]
        mask = np.zeros(len(order.values) + len(unsorted), np.bool_)
        mask[order.numbers[slice(*span)]] = True
        mask[len(order.values) :] = [matches(value) for value in unsorted]
        return mask

    def _order(self) -> _SortedValues:
        order, count = self._sorted, len(self.values)
        if count - len(order.values) > MAX_UNSORTED + len(order.values) * MAX_UNSORTED_SHARE:
            numbers = sorted(range(count), key=self.values.__getitem__)
            order = self._sorted = _SortedValues(
                [self.values[number] for number in numbers], np.array(numbers, np.int64)
            )
        return order


@dataclass(frozen=True, slots=True)
class Column:
    """The elements at one path, in no order. It never changes: `with_values` returns another.

    `rows[i]` is the row that element i belongs to, `kinds[i]` its kind, `values[i]` the number, 0 or 1 for a boolean,
    or the code of a string or big number.
    """

    rows: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    kinds: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    values: NDArray[np.float64] = field(default_factory=lambda: np.empty(0, np.float64))
    strings: ValueDictionary = field(default_factory=ValueDictionary)
    bigs: ValueDictionary = field(default_factory=ValueDictionary)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the arrays and tables."""
        arrays = self.rows.nbytes + self.kinds.nbytes + self.values.nbytes
        return arrays + self.strings.memory_bytes + self.bigs.memory_bytes

    @property
    def wasteful(self) -> bool:
        """Whether the tables hold mostly values that no element has any more."""
        return len(self.strings.values) + len(self.bigs.values) > 2 * len(self.rows) + 1024

    def with_values(self, rows: Numbers, values: Iterable[object]) -> "Column":
        """Return the column with `values` as those of `rows`, in place of what they had."""
        fresh_rows, kinds, numbers = self._elements(rows.tolist(), values)
        kept = ~_mask_by_row(rows, self.rows)[self.rows]
        return Column(
            np.concatenate([self.rows[kept], np.array(fresh_rows, np.int32)]),
            np.concatenate([self.kinds[kept], np.array(kinds, np.uint8)]),
            np.concatenate([self.values[kept], np.array(numbers, np.float64)]),
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

    def matching(self, operator: Operator, operands: tuple[Scalar, ...], extent: int) -> Mask:
        """Return for each row below `extent` whether `operator` holds between its value and one of `operands`.

        The negated operators are not among those asked.
        """
        match operator:
            case Operator.EQUAL | Operator.IN:
                hits = self._equal(operands)
            case Operator.STARTS_WITH:
                hits = self._elements_with(STRING, self.strings.prefix_mask(str(operands[0])))
            case _:
                hits = self._compare(operator, operands[0])
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

    def _compare(self, operator: Operator, operand: Scalar) -> Mask:
        compare = ORDERINGS[operator]
        if isinstance(operand, str):
            return self._elements_with(STRING, self.strings.comparison_mask(operator, operand))
        below, above = _floats_around(operand)
        if below == above:
            numbers: Mask = np.asarray(compare(self.values, below))
        elif operator in (Operator.GREATER, Operator.GREATER_OR_EQUAL):
            numbers = self.values >= above
        else:
            numbers = self.values <= below
        hits: Mask = numbers & (self.kinds == NUMBER)
        return (
            hits | self._elements_with(BIG, self.bigs.comparison_mask(operator, operand)) if self.bigs.values else hits
        )

    def _elements_with(self, kind: int, mask: Mask) -> Mask:
        """Return which elements of `kind` point to a value that is `mask` to be a hit."""
        hits: Mask = self.kinds == kind
        hits[hits] = mask[self.values[hits].astype(np.int64)]
        return hits

    def _elements(
        self, rows: Iterable[int], values: Iterable[object]
    ) -> tuple[Sequence[int], Sequence[int], Sequence[float]]:
        """Return the elements of `values`, each that of one of `rows`: their rows, kinds and numbers."""
        of_rows: list[int] = []
        kinds: list[int] = []
        numbers: list[float] = []
        for row, value in zip(rows, values, strict=True):
            if isinstance(value, list | Mapping):
                of_rows.append(row)
                kinds.append(PRESENT)
                numbers.append(0.0)
            for scalar in value if isinstance(value, list) else (value,):
                if (kind := self._kind(scalar)) is not None:
                    of_rows.append(row)
                    kinds.append(kind)
                    numbers.append(self._number(kind, scalar))
        return of_rows, kinds, numbers

    def _kind(self, value: object) -> int | None:
        kind = _KINDS.get(type(value))
        return BIG if kind == NUMBER and type(value) is int and abs(value) > MAX_EXACT_INTEGER else kind

    def _number(self, kind: int, value: Any) -> float:
        if kind == STRING:
            return self.strings.code(value)
        return self.bigs.code(value) if kind == BIG else float(value)


def _mask_by_row(rows: Numbers, others: NDArray[np.int32]) -> Mask:
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
