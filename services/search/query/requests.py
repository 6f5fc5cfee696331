"""What callers ask of search, and which of it is refused."""

from collections.abc import Collection
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.common.errors import ArgumentError, DimensionError, FingerprintError
from services.common.filters import Filter
from services.common.names import validate_collection_name, validate_space_name
from services.common.vectors import Matrix, Metric, validate_comparable
from services.common.versions import Version
from services.search.core.change_feed import Space
from services.search.core.collection_index import Search
from services.search.core.errors import BatchVectorError

DEFAULT_TOP_K = 10
MAX_TOP_K = 10_000
MAX_IDS = 10_000
MAX_BATCH_VECTORS = 10_000
MAX_BATCH_HITS = 10_000_000


class EncodedVectors(Protocol):
    """Some vectors of a batch, as they came. Its length is that of its bytes."""

    def __len__(self) -> int: ...

    def decode(self, dimensions: int, offset: int) -> Matrix:
        """Return the vectors, shape (n, dimensions), the first of which is at `offset` of its batch.

        Components may be NaN or infinite.

        Raises:
            ArgumentError: the encoding is wrong.
            BatchDimensionError: a vector has another length.
            BatchVectorError: a vector is not whole.
        """
        ...


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """In what to search: a space of a collection, once the index holds `version`.

    Query vectors are of `fingerprint`, "" is not checked; `top_k` 0 means `DEFAULT_TOP_K`; the rest is as in
    `collection_index.Search`.
    """

    collection: str
    space: str
    fingerprint: str = ""
    top_k: int = 0
    condition: Filter | None = None
    version: Version | None = None
    ids: Collection[str] = ()
    score_limit: float | None = None
    exact: bool = False

    def validate(self) -> Search:
        """Return the search this asks for.

        Raises:
            ArgumentError: a name or number is not allowed.
        """
        validate_collection_name(self.collection)
        if not 0 <= self.top_k <= MAX_TOP_K:
            raise ArgumentError("top_k", self.top_k, f"must be 1 to {MAX_TOP_K}, or 0 for {DEFAULT_TOP_K}")
        if len(self.ids) > MAX_IDS:
            raise ArgumentError("ids", len(self.ids), f"there must be at most {MAX_IDS}")
        if self.score_limit is not None and not isfinite(self.score_limit):
            raise ArgumentError("score_limit", self.score_limit, "must be a finite number")
        return Search(
            validate_space_name(self.space),
            self.top_k or DEFAULT_TOP_K,
            self.condition,
            frozenset(self.ids),
            self.score_limit,
            exact=self.exact,
        )

    def check_fingerprint(self, space: Space) -> None:
        """Refuse vectors that something else made than those of `space`.

        Raises:
            FingerprintError: other weights, runtime or preprocessing made them.
        """
        if self.fingerprint and self.fingerprint != space.fingerprint:
            raise FingerprintError(space.fingerprint, self.fingerprint)


@dataclass(frozen=True, slots=True)
class Query:
    """One search: `vector` has shape (dimensions,). `paged` keeps the version; `page_token` goes on in one kept."""

    options: SearchOptions
    vector: Matrix
    paged: bool = False
    page_token: str = ""

    def check_vector(self, space: Space) -> None:
        """Refuse what cannot be compared in `space`.

        Raises:
            DimensionError: the vector's length is not the space's.
            VectorError: the space's metric cannot compare it.
            FingerprintError: other weights, runtime or preprocessing made it.
        """
        if len(self.vector) != space.dimensions:
            raise DimensionError(space.dimensions, len(self.vector))
        self.options.check_fingerprint(space)
        validate_comparable(self.vector, space.metric)


def check_batch_size(count: int, top_k: int) -> None:
    """Refuse a batch of `count` vectors that is too large.

    Raises:
        ArgumentError: there are too many vectors, or hits wanted.
    """
    if count > MAX_BATCH_VECTORS:
        raise ArgumentError("vectors", count, f"there must be at most {MAX_BATCH_VECTORS}")
    if count * top_k > MAX_BATCH_HITS:
        problem = f"at most {MAX_BATCH_HITS} hits may be wanted in all, so {MAX_BATCH_HITS // top_k} vectors of {top_k}"
        raise ArgumentError("vectors", count, problem)


def decode_vectors(encoded: EncodedVectors, space: Space, offset: int, top_k: int) -> Matrix:
    """Return the vectors of `encoded`, the first of them at `offset` of its batch, if `space` can compare them.

    Raises:
        ArgumentError: there are too many of them, or the encoding is wrong.
        BatchDimensionError: one has another length.
        BatchVectorError: one is NaN or infinite, or has a length of zero under cosine.
    """
    vectors = encoded.decode(space.dimensions, offset)
    check_batch_size(offset + len(vectors), top_k)
    _reject_first(np.isfinite(vectors).all(axis=1), offset, "has a NaN or infinite component")
    if space.metric is Metric.COSINE:
        _reject_first(vectors.any(axis=1), offset, "has length zero, which cosine cannot compare")
    return vectors


def _reject_first(valid: NDArray[np.bool_] | np.bool_, offset: int, problem: str) -> None:
    invalid = np.flatnonzero(~valid)
    if len(invalid):
        raise BatchVectorError(offset + int(invalid[0]), problem)
