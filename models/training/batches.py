"""Captions as numbers: a table of all of them, which ones fit a picture, and batches drawn from both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.training.captions import FIELDS, Caption, labels, of_colour, of_kind, titles, topics
from models.training.corpus import Example
from models.training.text import TextEncoder

ANY = -1
MIN_PICTURES_OF_COMBINATION = 3


class Vocabulary:
    """Numbers for label values: 0 is unknown, a new value gets the next number."""

    def __init__(self) -> None:
        self._numbers: list[dict[str, int]] = [{"": 0} for _ in FIELDS]

    def row(self, values: Mapping[str, str], absent: int) -> list[int]:
        """Return one number a field of `FIELDS`; `absent` where `values` has none."""
        return [
            numbers.setdefault(values[field], len(numbers)) if field in values else absent
            for field, numbers in zip(FIELDS, self._numbers, strict=True)
        ]


class CaptionTable:
    """Every caption once: its text and the labels it states."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._numbers: dict[Caption, int] = {}

    def numbers(self, captions: Sequence[Caption]) -> np.ndarray:
        """Return the row of each caption, adding those that are new."""
        return np.array([self._numbers.setdefault(caption, len(self._numbers)) for caption in captions], np.int64)

    def states(self) -> np.ndarray:
        """Return what each caption states, shape (captions, fields): a label's number or `ANY`."""
        return np.array([self._vocabulary.row(dict(caption.states), ANY) for caption in self._numbers], np.int64)

    def texts(self) -> list[str]:
        """Return the words of each caption."""
        return [caption.text for caption in self._numbers]


def text_vectors(encoder: TextEncoder, texts: Sequence[str], cache: Path) -> np.ndarray:
    """Embed `texts`, reading from and adding to the file `cache`."""
    known: dict[str, np.ndarray] = {}
    if cache.exists():
        with np.load(cache) as stored:
            known = dict(zip(stored["texts"].tolist(), stored["vectors"], strict=True))
    new = [text for text in dict.fromkeys(text.lower() for text in texts) if text not in known]
    if new:
        known.update(zip(new, encoder.run(new), strict=True))
        np.savez(cache, texts=np.array(list(known)), vectors=np.stack(list(known.values())))
    return np.stack([known[text.lower()] for text in texts])


def fits(states: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Say which pictures (rows of `labelled`) have every label each caption states: bool, (pictures, captions)."""
    return ((states[None] == ANY) | (states[None] == labelled[:, None])).all(-1)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of pictures, and columns of captions in sets that are each told apart on their own."""

    pictures: np.ndarray
    columns: tuple[np.ndarray, ...]


class Sampler:
    """Draws batches: pictures by `weights`, for each one caption by topic and one of its own, and two banks."""

    def __init__(self, examples: Sequence[Example], weights: np.ndarray, seed: int) -> None:
        vocabulary = Vocabulary()
        self.table = CaptionTable(vocabulary)
        self.labels = np.array([vocabulary.row(labels(example), 0) for example in examples], np.int64)
        self._topics = [[(w, self.table.numbers(c)) for w, c in topics(example)] for example in examples]
        self._titles = [self.table.numbers(titles(example)) for example in examples]
        self._kinds = self._bank(examples, minimum=1, with_colour=False)
        self._combinations = self._bank(examples, minimum=MIN_PICTURES_OF_COMBINATION, with_colour=True)
        self._cumulative = (weights / weights.sum()).cumsum()
        self._random = np.random.default_rng(seed)

    def _bank(self, examples: Sequence[Example], *, minimum: int, with_colour: bool) -> list[np.ndarray]:
        found: dict[tuple[tuple[str, str], ...], dict[Caption, None]] = {}
        pictures: dict[tuple[tuple[str, str], ...], int] = {}
        for example in examples:
            if with_colour and not example.colour:
                continue
            captions = of_colour(example) if with_colour else of_kind(example)
            found.setdefault(captions[0].states, {}).update(dict.fromkeys(captions))
            pictures[captions[0].states] = pictures.get(captions[0].states, 0) + 1
        return [self.table.numbers(list(found[key])) for key, count in pictures.items() if count >= minimum]

    def batch(self, size: int) -> Batch:
        """Draw `size` pictures, spread evenly over the weights, and their captions."""
        spread = (np.arange(size) + self._random.random(size)) / size
        pictures = np.minimum(np.searchsorted(self._cumulative, spread), len(self._cumulative) - 1)
        said = np.array([self._pick_topic(index) for index in pictures])
        titled = np.array([self._pick(self._titles[index]) for index in pictures])
        kinds, combinations = (self._pick_each(bank) for bank in (self._kinds, self._combinations))
        return Batch(pictures, (np.unique(said), np.unique(titled), kinds, combinations))

    def _pick(self, numbers: np.ndarray) -> int:
        return int(numbers[int(self._random.random() * len(numbers))])

    def _pick_each(self, bank: list[np.ndarray]) -> np.ndarray:
        return np.array([self._pick(numbers) for numbers in bank])

    def _pick_topic(self, index: int) -> int:
        choices = self._topics[index]
        left = self._random.random() * sum(weight for weight, _ in choices)
        for weight, numbers in choices:
            left -= weight
            if left <= 0:
                return self._pick(numbers)
        return self._pick(choices[-1][1])
