"""How a search grows from ten thousand vectors to a million: exact in float32 and int8, and HNSW, beside raw FAISS.

The service is fed from the disk (`benchmarks.search.fed`) and asked over gRPC by one caller.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.search.corpus import Corpus
from benchmarks.search.fed_service import KINDS, fed
from benchmarks.search.floors import RawFlat
from benchmarks.search.sources import generated
from benchmarks.search.truth import Truth
from benchmarks.timing import Latency, interleaved

SIZES = (10_000, 31_600, 100_000, 316_000, 1_000_000)
DIMENSIONS = 128
QUERIES = 100
HEAD = ("vectors", "raw FAISS flat", "exact, float32", "exact, int8", "HNSW", "recall@10 of HNSW")


@dataclass(frozen=True, slots=True)
class Step:
    """What was measured at one size; the engines' latencies are by the name of their index."""

    vectors: int
    raw: Latency
    engines: Mapping[str, Latency]
    recall: float

    @property
    def cells(self) -> Sequence[str]:
        """The cells of its line, in the order of `HEAD`."""
        return f"{self.vectors:,}", *map(str, (self.raw, *self.engines.values())), f"{self.recall:.4f}"


def grown(sizes: Sequence[int] = SIZES, dimensions: int = DIMENSIONS) -> list[Step]:
    """Return the steps, smallest first."""
    whole = generated(max(sizes), dimensions, QUERIES)
    return [_step(whole.first(size)) for size in sizes]


def _step(corpus: Corpus) -> Step:
    raw, truth = RawFlat(corpus.vectors), Truth(corpus)
    floors, engines, recall = [], {}, 0.0
    for index in KINDS:
        with fed(corpus, index) as running:
            works = [raw.search, running.search.search]
            floor, engines[index] = interleaved(works, list(corpus.queries), warm_up=len(corpus.queries) // 5)
            recall = truth.mean([running.search.search(query) for query in corpus.queries])
        floors.append(floor)
    return Step(len(corpus.vectors), min(floors, key=lambda floor: floor.p50), engines, recall)
