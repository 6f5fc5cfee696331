"""`python -m benchmarks.constants`: measure what `medley plan` computes with, one core, and print it as it is kept.

Takes about a minute and 1.5 GB. Put what it prints into `medley/sizing/constants.py`.
"""

import json
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import faiss
import numpy as np

from benchmarks.machine import description
from services.common.index_config import VectorStorage
from services.common.vectors import Matrix, Metric
from services.common.versions import Version
from services.search.collection.collection import LocalCollectionIndex
from services.search.core.change_feed import ChangeBatch, Space
from services.search.core.vector_index import Selection
from services.search.engines.faiss.vector_index import FaissIndex
from services.search.engines.memory.vector_index import MemoryIndex

DIMENSIONS = 512
SCANNED = 200_000
WALKED = 20_000
ASSIGNED, LISTS = 20_000, 2048
ITEMS = 50_000
METADATA_BYTES = 100
QUERIES = 30
NEIGHBOURS, BUILD_CANDIDATES, SEARCH_CANDIDATES = 32, 200, 128  # the defaults of the API
SCANNED_BYTES = {VectorStorage.FLOAT32: 4, VectorStorage.INT8: 1}


def main() -> None:
    """Measure and print."""
    print(f"# {description()}")
    vectors = clustered(SCANNED)
    for storage in SCANNED_BYTES:
        memory, scan, write = scan_figures(vectors, storage)
        print(f'BYTES_A_DIMENSION["{storage.value.lower()}"] = {memory:.2f}')
        print(f'SCANNED_BYTES_A_SECOND["{storage.value.lower()}"] = {scan:.2e}')
        print(f'INDEXED_FLOATS_A_SECOND["{storage.value.lower()}"] = {write:.2e}')
    graph, built, searched = graph_figures(vectors[:WALKED])
    print(f"GRAPH_BYTES_A_NEIGHBOUR = {graph:.2f}")
    print(f"BUILT_A_SECOND = {built:.0f}")
    print(f"WALK_SECONDS = {searched:.2e}")
    print(f"LIST_MULTIPLIED_A_SECOND = {list_figure(vectors[:ASSIGNED]):.2e}")
    item, metadata, taken = item_figures()
    print(f"ITEM_BYTES = {item:.0f}\nMETADATA_ITEM_BYTES = {metadata:.0f}\nITEMS_A_SECOND = {taken:.0f}")


def clustered(count: int) -> Matrix:
    """Return vectors around 1000 centres, as real ones are rather than spread evenly."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((1000, DIMENSIONS)).astype(np.float32)
    vectors: Matrix = random.standard_normal((count, DIMENSIONS), dtype=np.float32) * np.float32(0.7)
    vectors += centres[random.integers(0, 1000, count)]
    return vectors


def scan_figures(vectors: Matrix, storage: VectorStorage) -> tuple[float, float, float]:
    """Return bytes a dimension, bytes scanned a second by a query, and floats indexed a second."""
    index = FaissIndex(DIMENSIONS, Metric.COSINE, storage=storage)
    written = seconds(lambda: index.write(np.arange(len(vectors)), vectors))
    everything = Selection(len(vectors), len(vectors))
    times = [seconds(partial(index.search, query[None], 10, everything)) for query in vectors[:QUERIES]]
    scanned = len(vectors) * DIMENSIONS * SCANNED_BYTES[storage]
    return index.memory_bytes / vectors.size, scanned / median(times), vectors.size / written


def graph_figures(vectors: Matrix) -> tuple[float, float, float]:
    """Return bytes of the graph a neighbour, vectors built in a second, and seconds of a query."""
    faiss.omp_set_num_threads(1)
    kind: Any = faiss.ScalarQuantizer.QT_8bit  # its stub takes it for a quantizer
    index: Any = faiss.IndexHNSWSQ(DIMENSIONS, kind, NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = BUILD_CANDIDATES, SEARCH_CANDIDATES
    index.train(vectors[:5000])
    built = seconds(lambda: index.add(vectors))
    times = [seconds(partial(index.search, query[None], 10)) for query in vectors[:QUERIES]]
    graph = len(faiss.serialize_index(index)) / len(vectors) - DIMENSIONS
    return graph / NEIGHBOURS, len(vectors) / built, median(times)


def list_figure(vectors: Matrix) -> float:
    """Return the multiplications in a second when vectors are brought to their nearest list."""
    faiss.omp_set_num_threads(1)
    centres: Any = faiss.IndexFlatL2(DIMENSIONS)
    centres.add(vectors[:LISTS])
    return len(vectors) * LISTS * DIMENSIONS / seconds(lambda: centres.assign(vectors, 1))


def item_figures() -> tuple[float, float, float]:
    """Return bytes an item takes, those that its metadata take over their length, and items taken in a second."""
    empty, _ = filled(0)
    full, taken = filled(METADATA_BYTES)
    return empty / ITEMS, (full - empty) / ITEMS - METADATA_BYTES, ITEMS / taken


def filled(metadata_bytes: int) -> tuple[float, float]:
    """Return the bytes and seconds that items take with so much metadata, their one number left out."""
    space = Space("one", 1, Metric.EUCLIDEAN)
    index = LocalCollectionIndex([space], lambda _: MemoryIndex(1, Metric.EUCLIDEAN))
    value = json.dumps({"text": "x" * max(0, metadata_bytes - 12)}) if metadata_bytes else "{}"
    ids = [f"item-{number:011}" for number in range(ITEMS)]

    def fill() -> None:
        for begin in range(0, ITEMS, 1000):
            chosen = ids[begin : begin + 1000]
            index.write(ChangeBatch(chosen, [str(bytes(value, "ascii"), "ascii") for _ in chosen]))
        index.publish(Version("uid", 1))

    taken = seconds(fill)
    (state,) = index.states()
    return float(state.memory_bytes), taken


def seconds(work: Callable[[], object]) -> float:
    """Return the processor's time that `work` takes, which other processes hardly change."""
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
