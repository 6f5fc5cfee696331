"""Lines of the table: what was asked, the floors, Medley, its recall, and what it is held to."""

from collections.abc import Sequence
from dataclasses import dataclass

HEAD = ("", "raw FAISS", "raw FAISS behind gRPC", "Medley over gRPC", "recall@10", "target")


@dataclass(frozen=True, slots=True)
class Line:
    """One line; a cell that does not apply is empty."""

    what: str
    raw: str = ""
    raw_over_grpc: str = ""
    medley: str = ""
    recall: str = ""
    target: str = ""

    @property
    def cells(self) -> Sequence[str]:
        """The line's cells, in the order of `HEAD`."""
        return self.what, self.raw, self.raw_over_grpc, self.medley, self.recall, self.target


def judged(target: str, met: bool) -> str:
    """Return a target and whether it was met."""
    return f"{target}: {'met' if met else '**missed**'}"
