"""What comes before queries and documents, and why."""

from typing import Any

import pytest

from services.embedder.core.catalog import Prefixes
from services.embedder.export.prefixes import BGE_CHINESE, BGE_ENGLISH, choose_prefixes

NONE = Prefixes()
E5 = Prefixes("query: ", "passage: ")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("intfloat/e5-base-v2", E5),
        ("/models/e5-small", E5),
        ("intfloat/multilingual-e5-large", E5),
        ("intfloat/multilingual-e5-large-instruct", NONE),
        ("BAAI/bge-small-en-v1.5", Prefixes(BGE_ENGLISH)),
        ("BAAI/bge-base-zh-v1.5", Prefixes(BGE_CHINESE)),
        ("BAAI/bge-m3", NONE),
        ("sentence-transformers/all-MiniLM-L6-v2", NONE),
        ("someone/not-e5-base-v2-at-all", NONE),
    ],
)
def test_known_families_have_theirs(name: str, expected: Prefixes) -> None:
    assert choose_prefixes({}, (name, ""), None, None).prefixes == expected


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ({"prompts": {"query": "q: ", "document": "d: "}}, Prefixes("q: ", "d: ")),
        ({"prompts": {"query": "q: ", "passage": "p: "}}, Prefixes("q: ", "p: ")),
        ({"prompts": {"x": "always: "}, "default_prompt_name": "x"}, Prefixes("always: ", "always: ")),
        ({"prompts": {"query": "", "document": ""}}, E5),
        ({"prompts": {}, "default_prompt_name": None}, E5),
    ],
)
def test_what_the_folder_says_comes_before_what_is_known(prompts: dict[str, Any], expected: Prefixes) -> None:
    assert choose_prefixes(prompts, ("intfloat/e5-base-v2",), None, None).prefixes == expected


def test_what_the_user_says_comes_first_each_for_itself() -> None:
    said = choose_prefixes({}, ("intfloat/e5-base-v2",), "ask: ", None)
    assert (said.prefixes, said.reason) == (Prefixes("ask: ", "passage: "), "from the options")
    assert choose_prefixes({}, ("intfloat/e5-base-v2",), "", "").prefixes == NONE
