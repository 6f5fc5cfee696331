"""Interface of the engines that the driver measures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.search.conditions import Condition
from benchmarks.search.corpus import Corpus, Matrix

TOP_K = 10
M, EF_CONSTRUCTION, EF_SEARCH = 32, 200, 128  # the same for every graph, so that recall is similar
ROWS_PER_WRITE = 5000


class Peer(Protocol):
    """An engine with a corpus, in one of its `modes`; `version` names its package and version."""

    modes: Sequence[str]
    version: str

    def __init__(self, folder: Path, mode: str) -> None:
        """Start an engine that keeps its files in `folder`, which is empty."""
        ...

    def load(self, corpus: Corpus) -> None:
        """Load vectors and metadata; return once searches see and use all of them."""
        ...

    def search(self, query: Matrix, condition: Condition | None) -> list[int]:
        """Return the numbers of the ten best items."""
        ...

    def stop(self) -> None:
        """Stop everything that was started."""
        ...
