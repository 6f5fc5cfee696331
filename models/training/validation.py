"""Measures weights while they are trained, on the validation part."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from models.training import corpus, measures
from models.training.augment import Augment
from models.training.batches import text_vectors
from models.training.corpus import Example
from models.training.network import Towers
from models.training.text import TextEncoder

BATCH = 256
MIN_PICTURES = 10
Embed = Callable[[Sequence[str]], np.ndarray]


class Validator:
    """Holds the validation pictures at one size; `cache` keeps the text vectors of the queries."""

    def __init__(self, examples: Sequence[Example], size: int, text: TextEncoder, cache: Path) -> None:
        self._examples = examples
        self._canvases = corpus.canvases(examples, size)
        self._text, self._cache = text, cache

    @torch.no_grad()
    def report(self, towers: Towers, augment: Augment) -> str:
        """Return one line of figures: precision@10 of its ceiling (number of queries), and recall@10 of titles."""

        def embed(texts: Sequence[str]) -> np.ndarray:
            return towers.text(torch.from_numpy(text_vectors(self._text, texts, self._cache))).numpy()

        starts = range(0, len(self._examples), BATCH)
        pictures = np.concatenate([self._pictures(towers, augment, start) for start in starts])
        return ", ".join([*self._fashion(embed, pictures), *self._caltech(embed, pictures)])

    def _pictures(self, towers: Towers, augment: Augment, start: int) -> np.ndarray:
        canvases = torch.from_numpy(self._canvases[start : start + BATCH]).permute(0, 3, 1, 2).float() / 255
        return towers.image(augment.normalise(canvases)).numpy()

    def _part(self, source: str, pictures: np.ndarray) -> tuple[list[Example], np.ndarray]:
        rows = [index for index, example in enumerate(self._examples) if example.source == source]
        return [self._examples[index] for index in rows], pictures[rows]

    def _fashion(self, embed: Embed, pictures: np.ndarray) -> Iterator[str]:
        examples, vectors = self._part(corpus.FASHION, pictures)
        for query in (measures.kind, measures.colour_and_kind):
            found = measures.precision(embed, vectors, measures.answers_by(examples, query, MIN_PICTURES))
            yield f"fashion {query.__name__} {found.mean:.3f} ({len(found.by_query)})"
        yield f"titles {measures.title_recall(embed, vectors, examples):.3f}"

    def _caltech(self, embed: Embed, pictures: np.ndarray) -> Iterator[str]:
        examples, vectors = self._part(corpus.CALTECH, pictures)
        found = measures.precision(embed, vectors, measures.answers_by(examples, measures.kind, 1))
        yield f"caltech {found.mean:.3f} of {found.ceiling:.3f} ({len(found.by_query)})"
