import json

import pytest

from services.common.errors import MetadataError
from services.store.data.merge_patch import apply_merge_patch


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [
        ('{"a": "b"}', '{"a": "c"}', {"a": "c"}),
        ('{"a": "b"}', '{"b": "c"}', {"a": "b", "b": "c"}),
        ('{"a": "b"}', '{"a": null}', {}),
        ('{"a": "b", "b": "c"}', '{"a": null}', {"b": "c"}),
        ('{"a": ["b"]}', '{"a": "c"}', {"a": "c"}),
        ('{"a": "c"}', '{"a": ["b"]}', {"a": ["b"]}),
        ('{"a": {"b": "c"}}', '{"a": {"b": "d", "c": null}}', {"a": {"b": "d"}}),
        ('{"a": [{"b": "c"}]}', '{"a": [1]}', {"a": [1]}),
        ('{"e": null}', '{"a": 1}', {"e": None, "a": 1}),
        ("{}", '{"a": {"bb": {"ccc": null}}}', {"a": {"bb": {}}}),
        ("", '{"a": 1}', {"a": 1}),
        ('{"a": 1}', "", {"a": 1}),
    ],
)
def test_merges_as_the_rfc_says(before: str, patch: str, after: object) -> None:
    assert json.loads(apply_merge_patch(before, patch)) == after


def test_large_whole_numbers_and_words_stay_as_they_are() -> None:
    assert (
        apply_merge_patch('{"n": 12345678901234567890}', '{"w": "漢字"}') == '{"n": 12345678901234567890, "w": "漢字"}'
    )


@pytest.mark.parametrize("patch", ["[]", "{", '{"a": NaN}', '{"a": 1e999}', r'{"a": "\ud800"}'])
def test_what_is_no_metadata_is_refused(patch: str) -> None:
    with pytest.raises(MetadataError):
        apply_merge_patch("{}", patch)


def test_an_outcome_that_is_too_large_is_refused() -> None:
    large = "x" * 600_000
    with pytest.raises(MetadataError):
        apply_merge_patch(json.dumps({"a": large}), json.dumps({"b": large}))
