"""A search service fed from the disk, in a process of its own: how the others start `benchmarks.search.fed`."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import free_ports, process
from benchmarks.search.corpus import Corpus
from benchmarks.search.service import Search, channel

KINDS = {"exact-float32": "exact", "exact-int8": "exact", "hnsw": "hnsw"}


@dataclass(frozen=True, slots=True)
class Fed:
    """A service that answers, its process, and the seconds from its start to its first answer, as configured."""

    search: Search
    pid: int
    start_seconds: float


@contextmanager
def fed(corpus: Corpus, index: str, **settings: str) -> Iterator[Fed]:
    """Run a search service fed with `corpus` and indexed as `index`; `settings` go to its environment."""
    with tempfile.TemporaryDirectory(prefix="medley-bench-") as temporary:
        folder = Path(temporary)
        corpus.save(folder)
        address = f"127.0.0.1:{free_ports(1)[0]}"
        threads = str(os.cpu_count() or 1)
        environment = {**os.environ, "SEARCH_LISTEN": address, "SEARCH_BUILD_THREADS": threads, **settings}
        with (folder / "fed.log").open("ab") as log:
            began = time.monotonic()
            with (
                process("benchmarks.search.fed", environment, log, str(folder), "--index", index) as running,
                channel(address) as opened,
            ):
                search = Search(opened)
                search.reached(corpus.queries[0], "")
                search.ready(KINDS[index])
                yield Fed(search, running.pid, time.monotonic() - began)
