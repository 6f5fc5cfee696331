"""Texts to the tokens that a graph takes."""

import threading

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from services.embedder.adapters.model_files import verified
from services.embedder.core.catalog import Padding, TextTower
from services.embedder.core.errors import ModelFileError

TokenIds = NDArray[np.int64]


class Tokens:
    """Makes the inputs of a tower's graph; its tokenizer is loaded by whichever thread is first."""

    def __init__(self, tower: TextTower) -> None:
        self._tower = tower
        self._tokenizer: Tokenizer | None = None
        self._loading = threading.Lock()

    def inputs(self, text: str) -> dict[str, TokenIds]:
        """Return the inputs for one text by their names in the graph, each int64 of shape (1, tokens).

        Raises:
            ModelFileError: the tokenizer's file is missing, altered or none.
        """
        ids = self._loaded().encode(text).ids
        padded, mask = _padded(ids, self._tower.padding)
        found = {"input_ids": padded, "attention_mask": mask}
        return {name: found[name] for name in self._tower.inputs}

    def _loaded(self) -> Tokenizer:
        if self._tokenizer is None:
            with self._loading:
                if self._tokenizer is None:
                    self._tokenizer = _tokenizer(self._tower)
        return self._tokenizer


def _padded(ids: list[int], padding: Padding | None) -> tuple[TokenIds, TokenIds]:
    """Return `ids` and their mask, 1 for a token and 0 for what fills up."""
    missing = padding.length - len(ids) if padding else 0
    filling = [padding.token_id] * missing if padding else []
    return np.array([ids + filling], np.int64), np.array([[1] * len(ids) + [0] * missing], np.int64)


def _tokenizer(tower: TextTower) -> Tokenizer:
    path = verified(tower.tokenizer)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself
        raise ModelFileError(path, f"it is no tokenizer: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(tower.max_tokens)
    return tokenizer
