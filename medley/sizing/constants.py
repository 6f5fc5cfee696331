"""Constants of the estimates. `python -m benchmarks.constants` measures and prints them.

Measured with one core of an AMD EPYC with 24 GiB (faiss-cpu 1.15.1, numpy 2.4.6), vectors of 512 dimensions around 1000
centres, unless noted otherwise.
"""

BYTES_PER_DIMENSION = {"float32": 4.00, "int8": 5.03}
"""Memory of an exact index: float32 vectors, and the codes that a scan reads."""

SCANNED_BYTES_PER_DIMENSION = {"float32": 4, "int8": 1}
"""Bytes that a scan reads per dimension."""

SCANNED_BYTES_PER_SECOND = {"float32": 2.8e10, "int8": 2.1e10}
"""Speed of one query's scan, over 200,000 vectors."""

INDEXED_FLOATS_PER_SECOND = {"float32": 1.5e8, "int8": 1.0e8}
"""Speed of adding vectors to an exact index, as when a snapshot is loaded."""

HNSW_M = 32
"""Links per vector in a graph (M): the default of the API."""

GRAPH_BYTES_PER_LINK = 8.5
GRAPH_INSERTS_PER_SECOND = 2600.0
GRAPH_QUERY_SECONDS = 2.0e-4
GRAPH_VECTORS = 20_000
"""A graph of int8 vectors with the default parameters: its size, and the times of an insert and of a query, measured
with `GRAPH_VECTORS` vectors. Both times grow with the logarithm of the number of vectors."""

LIST_MULTIPLICATIONS_PER_SECOND = 5.9e10
"""Multiplications per second when vectors are assigned to the nearest of 2048 lists."""

LISTS_PER_SQRT_ITEMS, PROBED_SHARE, LIST_ENTRY_BYTES = 4, 1 / 16, 8
"""The defaults of the API for inverted files, and the bytes of a list entry besides the vector."""

ITEM_BYTES = 160
METADATA_ITEM_BYTES = 50
"""Memory of an item with an id of 16 characters, and of metadata besides their own length. Filters add columns."""

ITEMS_PER_SECOND = 1.0e6
"""Speed of adding ids and metadata."""

MEMORY_SHARE = 0.8
LOAD_SHARE = 0.7
"""Shares of a machine's memory for indexes and of its processor time for queries. Chosen, not measured."""

GPU_BYTES_PER_SECOND = 4.8e12 * 0.7
GPU_BATCH_QUERIES = 64
GPU_BYTES_PER_DIMENSION, GPU_HOST_BYTES_PER_DIMENSION = 2, 4
GPU_WORKSPACE_BYTES = 400e6
"""The engine `torch`: its scan at 0.7 of the bandwidth that an H200's vendor states, which is the aim and **not
measured yet** (`python -m benchmarks.gpu`), the queries that share a scan, float16 vectors on the GPU, float32 vectors
in the machine's memory."""

MILVUS_MEMORY_FACTOR = 1.25
MILVUS_OVERHEAD_SECONDS = 5e-3
"""Memory of Milvus's query nodes relative to the index, and the overhead of a query. Rules of thumb, **not
measured**."""

MAX_EXACT_SECONDS = 0.05
"""Queries that take one core longer than this are better answered by another index."""
