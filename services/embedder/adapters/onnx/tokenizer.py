"""Tokenization of texts for a graph."""

import threading

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from services.embedder.adapters.model_files import verify_file
from services.embedder.core.catalog import Padding, TextTower
from services.embedder.core.errors import ModelFileError

TokenIds = NDArray[np.int64]


class TowerTokenizer:
    """Builds the inputs of a tower's graph; the tokenizer is loaded lazily and once."""

    def __init__(self, tower: TextTower) -> None:
        self._tower = tower
        self._tokenizer: Tokenizer | None = None
        self._loading = threading.Lock()

    def inputs(self, text: str) -> dict[str, TokenIds]:
        """Return the inputs for one text by their names in the graph, each int64 of shape (1, tokens).

        Raises:
            ModelFileError: the tokenizer's file is missing, altered or invalid.
        """
        ids = self._load().encode(text).ids
        padded, mask = _pad(ids, self._tower.padding)
        found = {"input_ids": padded, "attention_mask": mask}
        return {name: found[name] for name in self._tower.inputs}

    def _load(self) -> Tokenizer:
        if self._tokenizer is None:
            with self._loading:
                if self._tokenizer is None:
                    self._tokenizer = _load_tokenizer(self._tower)
        return self._tokenizer


def _pad(ids: list[int], padding: Padding | None) -> tuple[TokenIds, TokenIds]:
    """Return `ids` with their padding, and the attention mask: 1 for a token, 0 for padding."""
    missing = padding.length - len(ids) if padding else 0
    fill = [padding.token_id] * missing if padding else []
    return np.array([ids + fill], np.int64), np.array([[1] * len(ids) + [0] * missing], np.int64)


def _load_tokenizer(tower: TextTower) -> Tokenizer:
    path = verify_file(tower.tokenizer)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise ModelFileError(path, f"it is no tokenizer: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(tower.max_tokens)
    return tokenizer
