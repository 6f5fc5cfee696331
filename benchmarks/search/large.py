"""A million vectors, fed from the disk: latency, recall and memory, and a start from the snapshot."""

import tempfile
from pathlib import Path

from benchmarks.processes import private_bytes
from benchmarks.search.corpus import Corpus
from benchmarks.search.fed_service import fed
from benchmarks.search.figures import Line
from benchmarks.search.floors import RawFlat
from benchmarks.search.latencies import exact_lines
from benchmarks.search.starts import snapshots
from benchmarks.search.truth import Truth


def measured(corpus: Corpus) -> list[Line]:
    """Return the lines of `corpus`."""
    truth, raw = Truth(corpus), RawFlat(corpus.vectors)
    with tempfile.TemporaryDirectory(prefix="medley-bench-") as temporary:
        settings = snapshots(Path(temporary))
        with fed(corpus, "exact-int8", **settings) as running:
            lines = exact_lines(corpus, truth, raw, None, running.search)
            private = private_bytes(running.pid) / corpus.vectors.nbytes
        with fed(corpus, "exact-int8", **settings) as again:
            loaded = again.start_seconds
    shown = f"{running.start_seconds:.1f} s fed with everything, {loaded:.1f} s from its snapshot"
    mib = f"{corpus.vectors.nbytes / 2**20:,.0f} MiB of float32"
    lines.append(Line("memory of the whole search process", mib, "", f"{private:.2f} × the vectors"))
    lines.append(Line("search process, from its start to its first answer", medley=shown))
    return lines
