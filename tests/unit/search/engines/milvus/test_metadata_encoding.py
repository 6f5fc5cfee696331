"""What metadata come to in Milvus: spellings that order as values do, and what is left out where it is too much."""

import json
import math
import random
from fractions import Fraction

import pytest

from services.search.engines.milvus.metadata_encoding import (
    MAX_BOUNDS_BYTES,
    MAX_ENCODED,
    MAX_TOKENS,
    encode_metadata,
    encode_number,
    encode_string,
    equal_token,
    exists_token,
    omitted_token,
)


def a_number(chance: random.Random) -> int | float:
    whole = chance.randint(-5, 5) * 2 ** chance.randint(0, 200) + chance.randint(-3, 3)
    fraction = math.ldexp(chance.uniform(-1, 1), chance.randint(-1070, 1020))
    small = chance.randint(-9, 9)
    numbers: list[int | float] = [whole, fraction, chance.uniform(-3, 3), float(small), small]
    return chance.choice(numbers)


def test_spelt_numbers_order_and_equal_as_the_numbers_do() -> None:
    chance = random.Random(0)
    numbers = [a_number(chance) for _ in range(600)]
    for one, other in zip(numbers, random.Random(1).sample(numbers, len(numbers)), strict=True):
        assert (encode_number(one) < encode_number(other)) is (Fraction(one) < Fraction(other))
        assert (encode_number(one) == encode_number(other)) is (Fraction(one) == Fraction(other))
    ordered = sorted(numbers, key=Fraction)
    assert sorted(numbers, key=encode_number) == ordered
    assert encode_number(-math.inf) < min(map(encode_number, numbers))
    assert encode_number(math.inf) > max(map(encode_number, numbers))


def test_cut_numbers_compare_with_operands_as_the_whole_ones() -> None:
    operands = [10**308, -(10**308), 1.7e308, -1.7e308, 3, -3, 0]
    for value in (10**4000 + 1, -(10**4000) - 1, 10**308 + 1, -(10**308) - 1, 2**4096 - 1):
        for operand in operands:
            assert (encode_number(value)[:MAX_ENCODED] < encode_number(operand)) is (value < operand)


def test_spelt_strings_order_as_code_points() -> None:
    chance = random.Random(2)
    strings = ["".join(chance.choice("ab%_\\'\"é中\uffff\U0001f600\x00") for _ in range(4)) for _ in range(300)]
    assert sorted(strings, key=encode_string) == sorted(strings)


def test_keys_with_dots_are_not_paths() -> None:
    assert exists_token(("a.b",)) != exists_token(("a", "b"))
    assert equal_token(("a",), 1) == equal_token(("a",), 1.0) != equal_token(("a",), True)
    assert equal_token(("a",), 1) != equal_token(("a",), "1")


@pytest.mark.parametrize(
    "metadata",
    [
        {"n": 1, "list": [f"value {number}" for number in range(10_000)]},
        {"n": 1, **{f"key {number}": number for number in range(10_000)}},
        {"n": 1, **{f"key {number}": "text " * 200 for number in range(500)}},
        {"n": 1, "deep": {f"key {number}": {"x": [number, str(number)]} for number in range(2000)}},
    ],
)
def test_what_is_kept_stays_within_bounds_and_the_rest_is_named(metadata: dict[str, object]) -> None:
    encoded_metadata = encode_metadata(json.dumps(metadata))
    assert len(encoded_metadata.tokens) <= MAX_TOKENS
    assert len(json.dumps(dict(encoded_metadata.bounds))) <= 65_536
    assert sum(len(encoded) for encoded in encoded_metadata.bounds.values()) <= MAX_BOUNDS_BYTES
    assert exists_token(("n",)) in encoded_metadata.tokens
    for key in metadata:
        kept = exists_token((key,)) in encoded_metadata.tokens
        assert kept or omitted_token((key,)) in encoded_metadata.tokens or omitted_token() in encoded_metadata.tokens
