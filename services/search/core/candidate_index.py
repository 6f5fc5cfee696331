"""The port of approximate (ANN) indexes, which propose the slots that are then compared exactly."""

from collections.abc import Callable, Generator, Sequence
from typing import BinaryIO, Protocol

from services.common.index_config import Hnsw, Ivf
from services.common.vectors import Matrix
from services.search.core.change_feed import Space
from services.search.core.vector_index import Mask, Numbers, Selection

AnnKind = Hnsw | Ivf

MAX_DEAD_SHARE = 0.3
"""An index with a larger share of dead entries is rebuilt rather than extended."""

MAX_GROWTH = 4
"""An index trained on its vectors is rebuilt once it would hold this many times as many as it was trained for."""


class CandidateIndex(Protocol):
    """An immutable index that proposes the slots likely to be nearest.

    Implementations pass `tests.contract.candidate_index`. Calls block, and may come from several threads. Vectors are
    as `VectorIndex.vectors` returns them, queries as callers sent them. A slot stands for the vector it held when it
    was added, even if it has been overwritten since.
    """

    @property
    def engine(self) -> str:
        """Name of the engine, as the API reports it."""
        ...

    @property
    def size(self) -> int:
        """Number of vectors, including dead ones: those of slots that were dropped or added again."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that the index takes."""
        ...

    def candidates(self, queries: Matrix, top_k: int, selection: Selection) -> Sequence[Numbers]:
        """Return for each of `queries`, shape (n, dimensions), slots of `selection`, likely with its `top_k` nearest.

        Each slot comes once, in any order. The result is empty where so few of the near ones are selected that this
        index cannot find them, or where finding them is slower than comparing all.
        """
        ...

    def with_search_params(self, kind: AnnKind) -> "CandidateIndex | None":
        """Return an index of the same vectors with the search parameters of `kind`; None if that needs a rebuild."""
        ...

    def extend(self, current: Mask, added: int) -> "AnnBuilder | None":
        """Return a builder that starts with the slots of this index that are set in `current`, a mask by slot.

        None if a rebuild is better for what is left together with `added` new vectors.
        """
        ...

    def save(self, file: BinaryIO) -> None:
        """Write the index to `file`, for `AnnFactory.load`."""
        ...


class AnnBuilder(Protocol):
    """Builds a `CandidateIndex`; used by one thread."""

    def add(self, slots: Numbers, vectors: Matrix) -> None:
        """Add row i of `vectors` as slots[i], in place of its old vector; slots differ. Takes time for each vector."""
        ...

    def finish(self) -> CandidateIndex:
        """Return the index; call nothing after this."""
        ...


Sampler = Callable[[int], Matrix]
"""Returns the given number of a space's vectors at random, or all if there are fewer."""


class AnnFactory(Protocol):
    """Creates the approximate indexes that a space can be configured with."""

    def min_vectors(self, kind: AnnKind) -> int:
        """Return the smallest number of vectors that an index of `kind` can be built from."""
        ...

    def new_builder(
        self, space: Space, kind: AnnKind, count: int, sampler: Sampler
    ) -> Generator[float, None, AnnBuilder]:
        """Return an empty builder for about `count` vectors, trained on what `sampler` returns.

        Yields 0 at each point where training can be stopped.
        """
        ...

    def load(self, file: BinaryIO) -> CandidateIndex:
        """Return the index that `CandidateIndex.save` wrote.

        Raises:
            ValueError: the file holds no such index.
        """
        ...
