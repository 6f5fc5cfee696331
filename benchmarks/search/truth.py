"""The right answers, by numpy, and how much of them an answer holds."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.conditions import CONDITIONS, Condition
from benchmarks.search.corpus import Corpus

TOP_K = 10
TOLERANCE = 1e-6  # what float32 sums in another order may differ by
BLOCK = 16


class Truth:
    """The scores of the tenth best item of each query, unfiltered and under each condition.

    Recall goes by scores: products of one name have one vector, and which of them is among the best ten is nobody's to
    say. An item that the condition does not let pass, or that comes twice, counts for nothing.
    """

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self.masks = {condition: _mask(corpus, condition) for condition in (None, *CONDITIONS)}
        self._cuts = {condition: _cuts(corpus, mask) for condition, mask in self.masks.items()}

    def share(self, condition: Condition | None) -> float:
        """Return the share of the items that pass."""
        return float(self.masks[condition].mean())

    def recall(self, query: int, found: Sequence[int], condition: Condition | None = None) -> float:
        """Return which share of the best ten items for query number `query` is in `found`."""
        rows = np.unique(np.asarray(found[:TOP_K], np.int64))
        rows = rows[self.masks[condition][rows]]
        scores = self._corpus.vectors[rows] @ self._corpus.queries[query]
        wanted = min(TOP_K, int(self.masks[condition].sum()))
        return float((scores >= self._cuts[condition][query] - TOLERANCE).sum()) / wanted if wanted else 1.0

    def mean(self, found: Sequence[Sequence[int]], condition: Condition | None = None) -> float:
        """Return the mean recall of `found`, one answer a query, in the order of the queries."""
        return float(np.mean([self.recall(query, rows, condition) for query, rows in enumerate(found)]))


def _mask(corpus: Corpus, condition: Condition | None) -> NDArray[np.bool_]:
    if condition is None:
        return np.ones(len(corpus.vectors), np.bool_)
    mask: NDArray[np.bool_] = corpus.fields[condition.field] == condition.value
    return mask


def _cuts(corpus: Corpus, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    vectors = corpus.vectors if mask.all() else corpus.vectors[mask]
    wanted = min(TOP_K, len(vectors))
    if not wanted:
        return np.zeros(len(corpus.queries), np.float32)
    blocks = [corpus.queries[begin : begin + BLOCK] @ vectors.T for begin in range(0, len(corpus.queries), BLOCK)]
    return np.concatenate([-np.partition(-scores, wanted - 1, axis=1)[:, wanted - 1] for scores in blocks])
