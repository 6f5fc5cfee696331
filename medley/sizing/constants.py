"""What estimates are computed from. Update it from what `python -m benchmarks.constants` prints.

Measured with one core of an AMD EPYC with 24 GiB (faiss-cpu 1.15.1, numpy 2.4.6), vectors of 512 dimensions around 1000
centres; anything else is said where it stands.
"""

BYTES_A_DIMENSION = {"float32": 4.00, "int8": 5.03}
"""What an exact index takes: float32 vectors, and beside them what a scan reads."""

SCANNED_BYTES = {"float32": 4, "int8": 1}
"""What a scan reads of each dimension."""

SCANNED_BYTES_A_SECOND = {"float32": 2.8e10, "int8": 2.1e10}
"""How fast one query scans, over 200,000 vectors."""

INDEXED_FLOATS_A_SECOND = {"float32": 1.5e8, "int8": 1.0e8}
"""How fast vectors are taken into an exact index, as when a snapshot is loaded."""

NEIGHBOURS = 32
"""Neighbours of a vector in a graph: the default of the API."""

GRAPH_BYTES_A_NEIGHBOUR = 8.5
BUILT_A_SECOND = 2600.0
WALK_SECONDS = 2.0e-4
WALKED = 20_000
"""A graph of int8 vectors with the default parameters: its size, and the speed of building and of a query, over so many
vectors. Both grow with the logarithm of the number of vectors."""

LIST_MULTIPLIED_A_SECOND = 5.9e10
"""Multiplications a second when vectors are brought to their nearest of 2048 lists."""

LISTS_OF_THE_ROOT, PROBED_SHARE, LIST_ENTRY_BYTES = 4, 1 / 16, 8
"""The defaults of the API for inverted files, and what an entry of a list takes besides the vector."""

ITEM_BYTES = 160
METADATA_ITEM_BYTES = 50
"""What an item takes with an id of 16 characters, and metadata besides their own length. Filters add their columns."""

ITEMS_A_SECOND = 1.0e6
"""How fast ids and metadata are taken in."""

MEMORY_SHARE = 0.8
LOAD_SHARE = 0.7
"""How much of a machine's memory indexes may take, and of its processors' time queries. Chosen, not measured."""

GPU_BYTES_A_SECOND = 4.8e12 * 0.7
GPU_QUERIES = 64
GPU_BYTES_A_DIMENSION, GPU_HOST_BYTES_A_DIMENSION = 2, 4
GPU_WORKSPACE_BYTES = 400e6
"""The engine `torch`: its scan at 0.7 of the bandwidth that an H200's vendor states, which is the aim and **not
measured yet** (`python -m benchmarks.gpu`), queries that share a scan, halves on the GPU, float32 vectors in the
machine's memory."""

MILVUS_SHARE = 1.25
MILVUS_SECONDS = 5e-3
"""What Milvus's query nodes take over the index itself, and a query over its walk of the graph. Rules of thumb, **not
measured**."""

EXACT_SECONDS_AT_MOST = 0.05
"""A query that takes one core longer than this is better answered by another index."""
