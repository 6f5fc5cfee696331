"""What is told of the indexes that there are."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.search.core.collection_index import SpaceState
from services.search.replication.replica import Replica

_BEFORE_ALL_NAMES = " "  # sorts before every character of a name, so joined names sort as the pair


@dataclass(frozen=True, slots=True)
class IndexReport:
    """The index of a space of a collection, and for how long the store has been known to be ahead of it."""

    collection: str
    state: SpaceState
    lag_seconds: float

    @property
    def key(self) -> str:
        """What orders reports by collection and space."""
        return f"{self.collection}{_BEFORE_ALL_NAMES}{self.state.space.name}"


def index_reports(replicas: Sequence[Replica]) -> list[IndexReport]:
    """Return a report of each index, by collection and space; blocks, in any thread."""
    reports = [
        IndexReport(replica.collection, state, replica.lag_seconds)
        for replica in replicas
        if (index := replica.index)
        for state in index.states()
    ]
    return sorted(reports, key=lambda report: report.key)
