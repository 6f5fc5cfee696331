"""What a filter means, through the oracle `matches`, and that its spellings agree."""

import pytest

from services.common.errors import FilterError
from services.common.filter_codec import from_json, from_message, to_message
from services.common.filters import Comparison, Operator, canonical_key, matches

SHOE = {
    "colour": "green",
    "price": 49.5,
    "stock": 3,
    "sale": True,
    "tags": ["new", "run", 7],
    "size": {"eu": 42},
    "a.b": 1,
    "gone": None,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", True),
        ('{"colour": "green"}', True),
        ('{"colour": {"$ne": "green"}}', False),
        ('{"price": {"$gt": 49, "$lt": 50}}', True),
        ('{"stock": 3.0}', True),
        ('{"stock": {"$gte": 4}}', False),
        ('{"sale": true}', True),
        ('{"sale": 1}', False),
        ('{"stock": "3"}', False),
        ('{"tags": "run"}', True),
        ('{"tags": {"$gt": 6}}', True),
        ('{"tags": {"$nin": ["old", "used"]}}', True),
        ('{"tags": {"$in": ["old", "new"]}}', True),
        ('{"colour": {"$startsWith": "gr"}}', True),
        ('{"size.eu": 42}', True),
        ('{"a\\\\.b": 1}', True),
        ('{"size": {"$exists": true}}', True),
        ('{"gone": {"$exists": false}}', True),
        ('{"nowhere": {"$ne": 1}}', True),
        ('{"nowhere": {"$lt": 1}}', False),
        ('{"colour": {"$gt": "gray"}}', True),
        ('{"colour": {"$lt": 5}}', False),
        ('{"$or": [{"colour": "red"}, {"price": 49.5}]}', True),
        ('{"$and": [{"colour": "red"}, {"price": 49.5}]}', False),
        ('{"$not": {"colour": "red"}}', True),
    ],
)
def test_a_spelling_means_what_it_says(text: str, expected: bool) -> None:
    condition = from_json(text)
    assert matches(condition, SHOE) is expected
    assert canonical_key(from_message(to_message(condition))) == canonical_key(condition)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "not an object"),
        ("{", "not JSON"),
        ('{"a": {"$near": 1}}', "$near"),
        ('{"$nor": []}', "$nor"),
        ('{"a": null}', "null"),
        ('{"a": {"$gt": true}}', "$gt"),
        ('{"a": {"$gt": [1]}}', "$gt"),
        ('{"a": {"$in": 1}}', "$in"),
        ('{"a": {"$in": []}}', "$in"),
        ('{"a": {"$exists": 1}}', "$exists"),
        ('{"a": {"$startsWith": 1}}', "$startsWith"),
        ('{"a": {}}', "'a'"),
        ('{"$and": []}', "$and"),
        ('{"a..b": 1}', "empty key"),
        ('{"a": NaN}', "NaN"),
        ('{"a": 1e400}', "number over"),
        (f'{{"a": {"9" * 400}}}', "number over"),
        (r'{"a": "\ud800"}', "surrogates"),
        ('{"$not": ' * 40 + "{}" + "}" * 40, "deep"),
        ('{"a": {"$in": ' + "[" * 2000 + "]" * 2000 + "}}", "not JSON"),
    ],
)
def test_a_filter_that_cannot_be_read_names_its_problem(text: str, problem: str) -> None:
    with pytest.raises(FilterError, match=problem.replace("$", r"\$")):
        from_json(text)


def test_an_empty_message_is_refused() -> None:
    from medley.v1 import filter_pb2

    with pytest.raises(FilterError):
        from_message(filter_pb2.Filter())


def test_canonical_tells_true_from_one() -> None:
    one, true = (Comparison(("a",), Operator.EQUAL, (value,)) for value in (1, True))
    assert canonical_key(one) != canonical_key(true)
