"""A million vectors of 512 numbers, fed from the disk: latency, recall and memory, exact and by HNSW."""

from benchmarks.processes import resident_bytes
from benchmarks.search.corpus import Corpus
from benchmarks.search.fed_service import fed
from benchmarks.search.figures import Line
from benchmarks.search.floors import RawFlat
from benchmarks.search.latencies import exact_lines
from benchmarks.search.truth import Truth


def measured(corpus: Corpus) -> list[Line]:
    """Return the lines of `corpus`."""
    truth, raw = Truth(corpus), RawFlat(corpus.vectors)
    with fed(corpus, "exact-int8") as running:
        lines = exact_lines(corpus, truth, raw, None, running.search)
        resident, vectors = resident_bytes(running.pid), corpus.vectors.nbytes
    shown = f"{resident / 2**20:,.0f} MiB, {resident / vectors:.2f} × the vectors"
    lines.append(Line("memory of the whole search process", f"{vectors / 2**20:,.0f} MiB of float32", "", shown))
    lines.append(Line("start with nothing, fed, to the first answer", medley=f"{running.start_seconds:.1f} s"))
    return lines
