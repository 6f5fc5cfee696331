"""Writes while the index follows, and the memory it takes."""

import json
import statistics
import time

from benchmarks.processes import Suite, private_bytes
from benchmarks.search.corpus import Corpus
from benchmarks.search.figures import Line, judged
from benchmarks.search.service import ROWS_A_WRITE, Search, Store, changes

ROWS, ROUNDS, VISIBLE_MS = 500, 12, 100.0
MEMORY_TIMES = 1.3


def visible_line(corpus: Corpus, store: Store, medley: Search) -> Line:
    """Return the line of writes: 500 items written again, until a search that carries their version is answered."""
    after_call, after_answer = [], []
    for number in range(ROUNDS):
        begin = number * ROWS % max(1, len(corpus.vectors) - ROWS)
        request = changes(corpus, begin, begin + ROWS)
        called = time.perf_counter()
        version = store.write(request)
        answered = time.perf_counter()
        medley.reached(corpus.queries[0], version)
        after_call.append(1e3 * (time.perf_counter() - called))
        after_answer.append(1e3 * (time.perf_counter() - answered))
    shown = f"{statistics.median(after_answer):.0f} ms; from the call {statistics.median(after_call):.0f} ms"
    met = statistics.median(after_answer) <= VISIBLE_MS
    what = f"{ROWS} vectors written, durable, until a search sees them"
    return Line(what, medley=shown, target=judged(f"≤ {VISIBLE_MS:.0f} ms", met))


def memory_line(corpus: Corpus, suite: Suite, warm_mib: float, medley: Search) -> Line:
    """Return the line of what the search process's memory grew by since it held the first `ROWS_A_WRITE` items.

    The index's own account is judged: all that it holds, less the bytes of the metadata that it filters by.
    """
    vectors = corpus.vectors[ROWS_A_WRITE:].nbytes / 2**20
    grown = private_bytes(suite.processes["services.search"]) / 2**20 - warm_mib
    own, metadata = medley.state().memory_bytes / 2**20, _metadata_bytes(corpus) / 2**20
    times = (own - metadata) * 2**20 / corpus.vectors.nbytes
    account = f"by its own account {own:.0f}, {metadata:.0f} of them metadata, the rest {times:.2f} × the vectors"
    shown = f"{grown:.0f} MiB more, {grown / vectors:.2f} × theirs; {account}"
    target = judged(f"≤ {MEMORY_TIMES} × and the filters' columns", times <= MEMORY_TIMES)
    return Line("memory of the search process", f"{vectors:.0f} MiB of float32", "", shown, "", target)


def _metadata_bytes(corpus: Corpus) -> int:
    return sum(len(json.dumps(fields)) for fields in corpus.metadata(0, len(corpus.vectors)))
