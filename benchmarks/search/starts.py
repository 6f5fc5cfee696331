"""How soon a search process answers after its start: filled by the store, or from the snapshot it saved."""

import os
import tempfile
import time
from pathlib import Path

from benchmarks.processes import free_ports, process
from benchmarks.search.corpus import Corpus
from benchmarks.search.figures import Line
from benchmarks.search.service import Search, channel

STOP_SECONDS = "120"


def snapshots(folder: Path) -> dict[str, str]:
    """Return the settings of a search process that saves its indexes to `folder`, the last time before it stops."""
    return {"SEARCH_SNAPSHOTS": "folder", "SEARCH_SNAPSHOTS_DIR": str(folder), "SEARCH_DRAIN_SECONDS": STOP_SECONDS}


def start_line(corpus: Corpus, store: str, version: str) -> Line:
    """Return the line of two starts of a search process of its own beside `store`, until it answers for `version`."""
    with tempfile.TemporaryDirectory(prefix="medley-bench-") as temporary:
        settings = {"SEARCH_STORE_ADDRESS": store, **snapshots(Path(temporary))}
        filled, loaded = (_started(corpus, settings, version) for _ in range(2))
    shown = f"{filled:.1f} s filled by the store, {loaded:.1f} s from its snapshot"
    return Line("search process, from its start to its first answer", medley=shown)


def _started(corpus: Corpus, settings: dict[str, str], version: str) -> float:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with tempfile.TemporaryFile() as log:
        began = time.monotonic()
        environment = {**os.environ, **settings, "SEARCH_LISTEN": address}
        with process("services.search", environment, log), channel(address) as opened:
            Search(opened).reached(corpus.queries[0], version)
            return time.monotonic() - began
