"""`python -m benchmarks.peers.driver ENGINE FOLDER`: run the queries against an engine and print figures as JSON.

It runs in the engine's own environment, which has NumPy and the engine; FOLDER holds the corpus.
"""

import argparse
import importlib
import json
import signal
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from benchmarks.peers.peer import Peer
from benchmarks.search.conditions import CONDITIONS, Condition
from benchmarks.search.corpus import Corpus
from benchmarks.search.truth import Truth
from benchmarks.timing import Latency, seconds

ENGINES = {
    "medley": "MedleySearch",
    "lancedb": "LanceDb",
    "milvus_lite": "MilvusLite",
    "chromadb": "Chroma",
    "deeplake": "DeepLake",
}
CALLERS = 8


@dataclass(frozen=True, slots=True)
class Measurement:
    """Figures of an engine: seconds to load, p50 and p95 in ms with one caller, recall, queries/s with eight.

    `client_ms` is the processor time of a query in this process, which may include the engine.
    """

    engine: str
    mode: str
    condition: str
    load_seconds: float
    p50: float
    p95: float
    recall: float
    rate: float
    client_ms: float


def main() -> None:
    """Measure, and print one line per mode and condition."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.driver", description=__doc__)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each figure of eight callers")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the engine is stopped
    corpus = Corpus.load(options.folder)
    kind: type[Peer] = getattr(importlib.import_module(f"benchmarks.peers.{options.engine}"), ENGINES[options.engine])
    truth = Truth(corpus)
    for mode in kind.modes:
        with tempfile.TemporaryDirectory(prefix="medley-bench-") as folder:
            _ask(kind(Path(folder), mode), mode, corpus, truth, options.seconds)


def _ask(peer: Peer, mode: str, corpus: Corpus, truth: Truth, duration: float) -> None:
    try:
        loaded = seconds(lambda: peer.load(corpus))
        for condition in (None, *CONDITIONS):
            found, taken = [], []
            for query in corpus.queries:
                began = time.perf_counter()
                found.append(peer.search(query, condition))
                taken.append(time.perf_counter() - began)
            latency = Latency.of(taken[len(taken) // 5 :])
            recall = truth.mean(found, condition)
            rate, client_ms = _rate(peer, corpus, condition, duration)
            figures = (loaded, latency.p50, latency.p95, recall, rate, client_ms)
            label = condition.label if condition else ""
            print(json.dumps(asdict(Measurement(peer.version, mode, label, *figures))), flush=True)
    finally:
        peer.stop()


def _rate(peer: Peer, corpus: Corpus, condition: Condition | None, duration: float) -> tuple[float, float]:
    """Return queries per second of `CALLERS` threads, and the processor time of one in this process, in ms."""
    numbers = count()
    began, spent = time.perf_counter(), time.process_time()

    def caller() -> None:
        while time.perf_counter() < began + duration:
            peer.search(corpus.queries[next(numbers) % len(corpus.queries)], condition)

    threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asked = next(numbers)
    return asked / (time.perf_counter() - began), 1e3 * (time.process_time() - spent) / asked


if __name__ == "__main__":
    main()
