"""Filters by column say what the oracle `matches` says."""

import json
import random
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pytest

from services.common.filters import AllOf, AnyOf, Comparison, Exists, Filter, Not, Operator, Scalar, matches
from services.search.collection import column as column_module
from services.search.collection import metadata as metadata_module
from services.search.collection.metadata import MetadataColumns

NUMBERS: Sequence[int | float] = [
    *(0, 1, 2, -1, 0.0, -0.0, 1.0, 1.5, 0.1, 0.5, 1e300, -1e300, 1e-320, 2.0**53, 2.0**60, 2.0**63, 1e19),
    *(sign * (2**power + off) for sign in (1, -1) for power in (31, 53, 60, 63, 64, 70) for off in (-1, 0, 1, 2)),
    *(10**25, 10**400, -(10**400), float("inf"), float("-inf")),
]
STRINGS = ["", "a", "A", "ab", "abc", "b", "é", "e\u0301", "ｚ", "\U0001f600", "\uffff", "1", "true", "naïve", "\ud800"]
SCALARS: Sequence[Scalar] = [*NUMBERS, *STRINGS, True, False]
KEYS = ["a", "b", "c", "a.b", "é"]
UNORDERED = [Operator.EQUAL, Operator.NOT_EQUAL, Operator.IN, Operator.NOT_IN]


@pytest.fixture(params=[0, 1024], ids=["sorted", "unsorted"], autouse=True)
def unsorted_spare(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of a column are sorted only once there are many of them; few must do here."""
    monkeypatch.setattr(column_module, "MAX_UNSORTED", request.param)
    monkeypatch.setattr(metadata_module, "PARSE_BATCH_SIZE", 7 if request.param else 1024)


class Generator:
    """Metadata and filters that meet often: few keys, few values, every type under every key."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def metadata(self, depth: int = 3) -> dict[str, object]:
        return {key: self.value(depth - 1) for key in KEYS if self.random.random() < 0.6}

    def value(self, depth: int) -> object:
        kind = self.random.random()
        if kind < 0.15 and depth > 0:
            return self.metadata(depth)
        if kind < 0.35 and depth > 0:
            return [self.value(depth - 1) for _ in range(self.random.randrange(4))]
        return None if kind < 0.45 else self.scalar()

    def scalar(self) -> Scalar:
        return self.random.choice([self.random.choice(SCALARS), 1, True, 1.0, "a", 2**60])

    def path(self) -> tuple[str, ...]:
        return tuple(self.random.choice(KEYS) for _ in range(self.random.choice([1, 1, 1, 2, 3])))

    def condition(self, depth: int = 3) -> Filter:
        kind = self.random.random()
        if depth and kind < 0.15:
            return AllOf(tuple(self.condition(depth - 1) for _ in range(self.random.randrange(4))))
        if depth and kind < 0.3:
            return AnyOf(tuple(self.condition(depth - 1) for _ in range(self.random.randrange(4))))
        if depth and kind < 0.4:
            return Not(self.condition(depth - 1))
        if kind < 0.5:
            return Exists(self.path(), self.random.random() < 0.5)
        return self.comparison()

    def comparison(self) -> Comparison:
        operator = self.random.choice(list(Operator))
        if operator is Operator.STARTS_WITH:
            return Comparison(self.path(), operator, (self.random.choice(STRINGS),))
        if operator in (Operator.IN, Operator.NOT_IN):
            return Comparison(self.path(), operator, tuple(self.scalar() for _ in range(self.random.randrange(1, 5))))
        if operator in UNORDERED:
            return Comparison(self.path(), operator, (self.scalar(),))
        return Comparison(self.path(), operator, (self.random.choice([*NUMBERS, *STRINGS]),))


def text(metadata: Mapping[str, object]) -> str:
    """JSON, infinity as the number too large for float64 that a client may send."""
    return json.dumps(metadata).replace("-Infinity", "-1e999").replace("Infinity", "1e999")


def numbers(*rows: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(rows, np.int64)


@cache
def parsed(metadata: str) -> dict[str, object]:
    return dict(json.loads(metadata or "{}"))


def assert_agrees(columns: MetadataColumns, held: Sequence[str], condition: Filter, round_number: int) -> None:
    expected = [matches(condition, parsed(metadata)) for metadata in held]
    assert columns.matches(condition, len(held), round_number).tolist() == expected, condition


@pytest.mark.parametrize("seed", range(8))
def test_columns_agree_with_the_oracle(seed: int) -> None:
    generator = Generator(seed)
    held = [text(generator.metadata()) for _ in range(250)]
    columns = MetadataColumns()
    columns.write(np.arange(250), held, 0)
    for _ in range(300):
        assert_agrees(columns, held, generator.condition(), 0)


@pytest.mark.parametrize("seed", range(4))
def test_columns_agree_while_rows_come_and_change(seed: int) -> None:
    generator = Generator(100 + seed)
    held: list[str] = []
    columns = MetadataColumns()
    for round_number in range(40):
        fresh = generator.random.randrange(6)
        changed = generator.random.sample(range(len(held)), min(len(held), 3))
        rows = [*changed, *range(len(held), len(held) + fresh)]
        written = [text(generator.metadata()) for _ in rows]
        held += [""] * fresh
        for row, metadata in zip(rows, written, strict=True):
            held[row] = metadata
        columns.write(np.array(rows, np.int64), written, round_number)
        for _ in range(20):
            assert_agrees(columns, held, generator.condition(), round_number)


@pytest.mark.parametrize("operator", [op for op in Operator if op is not Operator.STARTS_WITH])
def test_every_number_compares_with_every_number_exactly(operator: Operator) -> None:
    held = [text({"n": number}) for number in NUMBERS]
    columns = MetadataColumns()
    columns.write(np.arange(len(held)), held, 0)
    for operand in NUMBERS:
        assert_agrees(columns, held, Comparison(("n",), operator, (operand,)), 0)


def test_dates_in_iso_8601_compare_as_the_times_they_are() -> None:
    held = [
        json.dumps({"at": f"{year}-0{month}-15T0{hour}:00:00Z"})
        for year in (2019, 2020)
        for month in (1, 9)
        for hour in (3, 7)
    ]
    columns = MetadataColumns()
    columns.write(np.arange(8), held, 0)
    after = Comparison(("at",), Operator.GREATER_OR_EQUAL, ("2019-09-15T07:00:00Z",))
    before = Comparison(("at",), Operator.LESS, ("2020-09",))
    assert np.flatnonzero(columns.matches(AllOf((after, before)), 8, 0)).tolist() == [3, 4, 5]


def test_strings_in_order_agree_with_the_oracle_while_new_ones_come() -> None:
    generator = random.Random(9)
    columns = MetadataColumns()
    held: list[str] = []
    for round_number in range(12):
        written = ["".join(generator.choices("ab\uffff\U0001f600", k=generator.randrange(6))) for _ in range(60)]
        spelt_rows = [json.dumps({"s": text, "n": 2**60 + generator.randrange(-9, 9)}) for text in written]
        columns.write(np.arange(len(held), len(held) + 60), spelt_rows, round_number)
        held += spelt_rows
        for operator in Operator:
            operand = generator.choice(written)
            assert_agrees(columns, held, Comparison(("s",), operator, (operand,)), round_number)
            if operator is not Operator.STARTS_WITH:
                number = 2**60 + generator.choice([-10, -3, 0, 0.5, 8, 10])
                assert_agrees(columns, held, Comparison(("n",), operator, (number,)), round_number)


def test_a_row_written_later_does_not_disturb_the_rows_before() -> None:
    columns = MetadataColumns()
    columns.write(numbers(0, 1), ['{"a": 1}', '{"a": 2}'], 0)
    condition = Comparison(("a",), Operator.EQUAL, (1,))
    columns.write(numbers(2), ['{"a": 1}'], 1)
    assert columns.matches(condition, 2, 0).tolist() == [True, False]
    assert columns.matches(condition, 3, 1).tolist() == [True, False, True]
    assert columns.matches(condition, 2, 0).tolist() == [True, False]


def test_columns_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_module, "MAX_COLUMNS", 3)
    columns = MetadataColumns()
    held = [json.dumps({f"k{row}": "x" * 100}) for row in range(10)]
    columns.write(np.arange(10), held, 0)
    sizes = set()
    for key in range(10):
        assert_agrees(columns, held, Exists((f"k{key}",), True), 0)
        sizes.add(columns.memory_bytes)
    assert max(sizes) < sum(map(len, held)) * 4
    assert len({size for size in list(sizes)}) <= 4


def test_values_that_no_row_has_any_more_do_not_pile_up() -> None:
    columns = MetadataColumns()
    condition = Exists(("at",), True)
    for round_number in range(400):
        columns.write(
            numbers(*range(10)), [json.dumps({"at": f"{round_number} {row}"}) for row in range(10)], round_number
        )
        columns.matches(condition, 10, round_number)
    assert columns.memory_bytes < 400_000


def test_a_column_grown_wasteful_is_made_anew_beside_one_asked_for_lately() -> None:
    columns = MetadataColumns()
    changing, lately = Exists(("at",), True), Exists(("n",), True)
    for round_number in range(240):
        held = [json.dumps({"at": f"{round_number} {row}", "n": row}) for row in range(10)]
        columns.write(numbers(*range(10)), held, round_number)
        condition = lately if round_number % 2 else AllOf((changing, lately))
        assert columns.matches(condition, 10, round_number).all()
