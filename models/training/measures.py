"""How good a ranking of pictures by words is."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.training.corpus import Example

Answers = Mapping[str, np.ndarray]
"""For each query, which rows are right: bool, shape (pictures,)."""

TOP = 10


@dataclass(frozen=True, slots=True)
class Precision:
    """The share of right pictures among the first ten of each query, and the mean a perfect ranking reaches."""

    by_query: Mapping[str, float]
    ceiling: float

    @property
    def mean(self) -> float:
        """Return the mean over the queries."""
        return float(np.mean(list(self.by_query.values())))


def precision(embed: Callable[[Sequence[str]], np.ndarray], pictures: np.ndarray, answers: Answers) -> Precision:
    """Measure every query of `answers` against the rows of `pictures`.

    The ceiling is what a perfect ranking would reach: below 1 where a query has fewer than ten right pictures.
    """
    queries = list(answers)
    scores = embed(queries) @ pictures.T
    first = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
    hits = {query: float(answers[query][row].mean()) for query, row in zip(queries, first, strict=True)}
    ceilings = [min(1.0, int(right.sum()) / TOP) for right in answers.values()]
    return Precision(hits, float(np.mean(ceilings)))


def answers_by(examples: Sequence[Example], query: Callable[[Example], str], minimum: int) -> Answers:
    """Group pictures by the query they answer; leave out queries with fewer than `minimum` pictures."""
    asked = np.array([query(example) for example in examples])
    counts = Counter(asked.tolist())
    return {text: asked == text for text in sorted(counts) if text and counts[text] >= minimum}


def title_recall(
    embed: Callable[[Sequence[str]], np.ndarray], pictures: np.ndarray, examples: Sequence[Example]
) -> float:
    """Return the share of titles that have a picture of a product of that name among their first ten."""
    names = np.array([example.title for example in examples])
    asked = sorted(set(names.tolist()))
    found = 0
    for name, vector in zip(asked, embed(asked), strict=True):
        best = np.argpartition(-(pictures @ vector), TOP)[:TOP]
        found += bool((names[best] == name).any())
    return found / len(asked)


def kind(example: Example) -> str:
    """Ask for the kind of thing, as the source spells it."""
    return example.kind.replace("_", " ")


def colour_and_kind(example: Example) -> str:
    """Ask for the colour and the kind of thing."""
    return f"{example.colour} {example.kind}" if example.colour else ""
