"""What comes before a query or a document: as the model's folder says, or as its family is known to want."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.embedder.core.catalog import Prefixes

BGE_ENGLISH = "Represent this sentence for searching relevant passages: "
BGE_CHINESE = "为这个句子生成表示以用于检索相关文章："

KNOWN_FAMILIES = (
    (re.compile(r"(^|[-_/])(multilingual-)?e5-(small|base|large)(-v2)?$"), Prefixes("query: ", "passage: ")),
    (re.compile(r"(^|[-_/])bge-(small|base|large)-en(-v1\.5)?$"), Prefixes(BGE_ENGLISH, "")),
    (re.compile(r"(^|[-_/])bge-(small|base|large)-zh(-v1\.5)?$"), Prefixes(BGE_CHINESE, "")),
)
"""Prefixes that a family's authors ask for, by the name of the model. Its architecture says nothing about them."""


@dataclass(frozen=True, slots=True)
class ChosenPrefixes:
    """Prefixes, and where they come from."""

    prefixes: Prefixes
    reason: str


def choose_prefixes(
    prompts: Mapping[str, Any], names: tuple[str, ...], query: str | None, document: str | None
) -> ChosenPrefixes:
    """Return the prefixes of a text model.

    `query` and `document` are what the user says, None for nothing; `prompts` is config_sentence_transformers.json;
    `names` are those the model goes by.
    """
    said = (
        _from_config(prompts)
        or _from_name(names)
        or ChosenPrefixes(Prefixes(), "none: neither its files nor its name ask for any")
    )
    if query is None and document is None:
        return said
    wanted = Prefixes(
        said.prefixes.query if query is None else query, said.prefixes.document if document is None else document
    )
    return ChosenPrefixes(wanted, "as asked for")


def _from_config(config: Mapping[str, Any]) -> ChosenPrefixes | None:
    prompts = config.get("prompts") or {}
    always = prompts.get(config.get("default_prompt_name") or "", "")
    query = prompts.get("query", always)
    document = next((prompts[name] for name in ("document", "passage") if name in prompts), always)
    found = Prefixes(query, document)
    return None if found == Prefixes() else ChosenPrefixes(found, "from config_sentence_transformers.json")


def _from_name(names: tuple[str, ...]) -> ChosenPrefixes | None:
    for name in names:
        for pattern, prefixes in KNOWN_FAMILIES:
            if pattern.search(name.lower().rstrip("/")):
                return ChosenPrefixes(prefixes, f"what the family of {name} is trained with")
    return None
