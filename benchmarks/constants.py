"""`python -m benchmarks.constants`: measure and print the constants of `medley plan`, with one core.

Takes about a minute and 1.5 GB. Copy the output to `medley/sizing/constants.py`.
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
SCAN_VECTORS = 200_000
GRAPH_VECTORS = 20_000
ASSIGN_VECTORS, LISTS = 20_000, 2048
ITEMS = 50_000
METADATA_BYTES = 100
QUERIES = 30
M, EF_CONSTRUCTION, EF_SEARCH = 32, 200, 128  # the defaults of the API
SCANNED_BYTES = {VectorStorage.FLOAT32: 4, VectorStorage.INT8: 1}


def main() -> None:
    """Measure and print."""
    print(f"# {description()}")
    vectors = generate_clusters(SCAN_VECTORS)
    for storage in SCANNED_BYTES:
        memory, scan, write = measure_scan(vectors, storage)
        print(f'BYTES_PER_DIMENSION["{storage.value.lower()}"] = {memory:.2f}')
        print(f'SCANNED_BYTES_PER_SECOND["{storage.value.lower()}"] = {scan:.2e}')
        print(f'INDEXED_FLOATS_PER_SECOND["{storage.value.lower()}"] = {write:.2e}')
    graph, built, searched = measure_graph(vectors[:GRAPH_VECTORS])
    print(f"GRAPH_BYTES_PER_LINK = {graph:.2f}")
    print(f"GRAPH_INSERTS_PER_SECOND = {built:.0f}")
    print(f"GRAPH_QUERY_SECONDS = {searched:.2e}")
    print(f"LIST_MULTIPLICATIONS_PER_SECOND = {measure_assignment(vectors[:ASSIGN_VECTORS]):.2e}")
    item, metadata, taken = measure_items()
    print(f"ITEM_BYTES = {item:.0f}\nMETADATA_ITEM_BYTES = {metadata:.0f}\nITEMS_A_SECOND = {taken:.0f}")


def generate_clusters(count: int) -> Matrix:
    """Return vectors around 1000 centres, which resemble real ones more than evenly spread vectors do."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((1000, DIMENSIONS)).astype(np.float32)
    vectors: Matrix = random.standard_normal((count, DIMENSIONS), dtype=np.float32) * np.float32(0.7)
    vectors += centres[random.integers(0, 1000, count)]
    return vectors


def measure_scan(vectors: Matrix, storage: VectorStorage) -> tuple[float, float, float]:
    """Return bytes per dimension, bytes that a query scans per second, and floats indexed per second."""
    index = FaissIndex(DIMENSIONS, Metric.COSINE, storage=storage)
    written = seconds(lambda: index.write(np.arange(len(vectors)), vectors))
    everything = Selection(len(vectors), len(vectors))
    times = [seconds(partial(index.search, query[None], 10, everything)) for query in vectors[:QUERIES]]
    scanned = len(vectors) * DIMENSIONS * SCANNED_BYTES[storage]
    return index.memory_bytes / vectors.size, scanned / median(times), vectors.size / written


def measure_graph(vectors: Matrix) -> tuple[float, float, float]:
    """Return the graph's bytes per link, vectors inserted per second, and seconds of a query."""
    faiss.omp_set_num_threads(1)
    kind: Any = faiss.ScalarQuantizer.QT_8bit  # its stub declares a quantizer
    index: Any = faiss.IndexHNSWSQ(DIMENSIONS, kind, M, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = EF_CONSTRUCTION, EF_SEARCH
    index.train(vectors[:5000])
    built = seconds(lambda: index.add(vectors))
    times = [seconds(partial(index.search, query[None], 10)) for query in vectors[:QUERIES]]
    graph = len(faiss.serialize_index(index)) / len(vectors) - DIMENSIONS
    return graph / M, len(vectors) / built, median(times)


def measure_assignment(vectors: Matrix) -> float:
    """Return the multiplications per second when vectors are assigned to their nearest list."""
    faiss.omp_set_num_threads(1)
    centres: Any = faiss.IndexFlatL2(DIMENSIONS)
    centres.add(vectors[:LISTS])
    return len(vectors) * LISTS * DIMENSIONS / seconds(lambda: centres.assign(vectors, 1))


def measure_items() -> tuple[float, float, float]:
    """Return bytes per item, bytes of its metadata besides their length, and items indexed per second."""
    empty, _ = fill_index(0)
    full, taken = fill_index(METADATA_BYTES)
    return empty / ITEMS, (full - empty) / ITEMS - METADATA_BYTES, ITEMS / taken


def fill_index(metadata_bytes: int) -> tuple[float, float]:
    """Return the bytes and seconds of an index of `ITEMS` items, each with one number and `metadata_bytes`."""
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
    """Return the processor time of `work`, which other processes hardly affect."""
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
