"""Prefixes of queries and documents: from the model's folder, or those known for its family."""

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
"""Prefixes that a family's authors prescribe, by model name; the architecture does not determine them."""


@dataclass(frozen=True, slots=True)
class ChosenPrefixes:
    """Prefixes, and where they come from."""

    prefixes: Prefixes
    reason: str


def choose_prefixes(
    prompts: Mapping[str, Any], names: tuple[str, ...], query: str | None, document: str | None
) -> ChosenPrefixes:
    """Return the prefixes of a text model.

    `query` and `document` are the user's, None if unset; `prompts` is config_sentence_transformers.json; `names` are
    those of the model.
    """
    default = (
        _from_config(prompts)
        or _from_name(names)
        or ChosenPrefixes(Prefixes(), "none: neither its files nor its name prescribe any")
    )
    if query is None and document is None:
        return default
    prefixes = Prefixes(
        default.prefixes.query if query is None else query, default.prefixes.document if document is None else document
    )
    return ChosenPrefixes(prefixes, "from the options")


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
                return ChosenPrefixes(prefixes, f"those of the family of {name}")
    return None
