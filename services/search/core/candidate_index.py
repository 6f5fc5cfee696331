"""What search asks of an approximate index: which slots are worth comparing exactly."""

from collections.abc import Callable, Generator, Sequence
from typing import BinaryIO, Protocol

from services.common.index_config import Hnsw, Ivf
from services.common.vectors import Matrix
from services.search.core.change_feed import Space
from services.search.core.vector_index import Mask, Numbers, Selection

Kind = Hnsw | Ivf

DEAD_SHARE = 0.3
"""An index more of which is dead than this is built anew rather than extended."""

GROWTH_AT_MOST = 4
"""An index that learnt from its vectors is built anew once it holds this many times as many."""


class CandidateIndex(Protocol):
    """Proposes slots that are likely nearest. It never changes. Implementations pass `tests.contract.candidate_index`.

    Calls block, and may come from several threads. Vectors are as `VectorIndex.vectors` returns them, queries as they
    came. What it proposes under a slot is the vector that the slot had when it was added.
    """

    @property
    def engine(self) -> str:
        """Name of the engine, as the API tells it."""
        ...

    @property
    def size(self) -> int:
        """Vectors in it, dead ones among them: those dropped, and those whose slot was added again."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory it takes."""
        ...

    def candidates(self, queries: Matrix, top_k: int, selection: Selection) -> Sequence[Numbers]:
        """Return for each of `queries`, shape (n, dimensions), slots of `selection`, likely with its `top_k` nearest.

        Each slot comes once, in any order. None at all where so few near ones are selected that this index cannot
        tell, or where it would be slower than comparing all.
        """
        ...

    def retuned(self, kind: Kind) -> "CandidateIndex | None":
        """Return an index of the same vectors that is searched as `kind` says; None if that takes building one."""
        ...

    def extending(self, current: Mask, more: int) -> "CandidateDraft | None":
        """Return a draft that begins with what this holds, but for the slots that are not in `current`, a mask by slot.

        None if an index built anew would be better for what is left and `more` vectors.
        """
        ...

    def save(self, file: BinaryIO) -> None:
        """Write the index to `file`, for `AnnFactory.load`."""
        ...


class CandidateDraft(Protocol):
    """An index in the making, in the hands of one thread."""

    def add(self, slots: Numbers, vectors: Matrix) -> None:
        """Add row i of `vectors` as slots[i], instead of what was there; slots differ. It takes time for each."""
        ...

    def finished(self) -> CandidateIndex:
        """Return the index; nothing is added any more."""
        ...


Sampler = Callable[[int], Matrix]
"""Returns that many of a space's vectors, or all where there are fewer, taken at random."""


class AnnFactory(Protocol):
    """Makes the approximate indexes that a space can be configured to have."""

    def least(self, kind: Kind) -> int:
        """Return how many vectors an index of `kind` needs at least."""
        ...

    def draft(self, space: Space, kind: Kind, count: int, draw: Sampler) -> Generator[float, None, CandidateDraft]:
        """Return an empty draft, made for about `count` vectors like those that `draw` draws.

        Yields 0 where it can be stopped.
        """
        ...

    def load(self, file: BinaryIO) -> CandidateIndex:
        """Return the index that `CandidateIndex.save` wrote.

        Raises:
            ValueError: no such index was written there.
        """
        ...
