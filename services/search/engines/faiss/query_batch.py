"""Queries that are searched together, and what a scan finds for them."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from services.common.vectors import Matrix, Metric
from services.search.core.scoring import Doubles, lengths_of
from services.search.core.vector_index import Numbers


@dataclass(frozen=True, slots=True)
class EncodedQueries:
    """Queries as whole numbers, shape (n, width): `factors` times their projections, give or take `missed`, both (n,).

    `lengths` are those of the queries.
    """

    numbers: Matrix
    factors: Doubles
    missed: Doubles
    lengths: Doubles


@dataclass(frozen=True, slots=True)
class QueryBatch:
    """Queries as given, and as the index compares them: under cosine scaled to length 1.

    `queries`, `directions` and these as float32, `floats`, have shape (n, dimensions), `lengths` (n,): those of
    `directions`. `encodings` are what quantizers made of them.
    """

    metric: Metric
    queries: Matrix
    directions: Doubles
    floats: Matrix
    lengths: Doubles
    encodings: dict[object, EncodedQueries] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.queries)

    @classmethod
    def of(cls, queries: Matrix, metric: Metric) -> Self:
        """Prepare `queries`, shape (n, dimensions)."""
        directions, lengths = queries.astype(np.float64), lengths_of(queries)
        if metric is Metric.COSINE:
            directions = np.divide(directions, lengths[:, None], out=directions, where=lengths[:, None] > 0)
            lengths = np.sign(lengths)
        return cls(metric, queries, directions, directions.astype(np.float32), lengths)

    def one(self, number: int) -> "QueryBatch":
        """Return one of the queries as a batch of its own."""
        part = slice(number, number + 1)
        arrays = (self.queries[part], self.directions[part], self.floats[part], self.lengths[part])
        return QueryBatch(self.metric, *arrays)


@dataclass(frozen=True, slots=True)
class CandidateSet:
    """For each query, slots that may be in its answer, and upper bounds of their similarity.

    `slots` and `bounds` have shape (queries, n), in no order; a slot whose bound is minus infinity is none. No other
    vector of part j of the index has a similarity above rest[i, j] to query i.
    """

    slots: Numbers
    bounds: Doubles
    rest: Doubles

    @classmethod
    def concatenate(cls, sets: list[Self]) -> Self:
        """Return what several parts of an index have found."""
        if len(sets) == 1:
            return sets[0]
        return cls(*(np.hstack([getattr(each, name) for each in sets]) for name in ("slots", "bounds", "rest")))
