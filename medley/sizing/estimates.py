"""Estimates of memory, time and machines for a workload, by kind of index."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medley.sizing import constants

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Machine:
    """The machines available."""

    memory_gib: float = 64
    cores: int = 16
    gpu_memory_gib: float = 80


@dataclass(frozen=True, slots=True)
class Workload:
    """Items and queries to plan for: `spaces` are dimensions by name, `metadata_bytes` those of an item, as JSON."""

    items: int
    spaces: Mapping[str, int]
    storage: str = "int8"
    queries_per_second: float = 10
    metadata_bytes: int = 200

    @property
    def dimensions(self) -> int:
        """Sum of the dimensions of all spaces."""
        return sum(self.spaces.values())


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimate for one kind of index, with every item in each space and every query in each space.

    `memory_bytes` and `gpu_bytes` are of one copy of all data. `query_seconds` are those of one core, or of the GPU.
    `machines` is the number that answers the workload's queries, None if the data do not fit. `max_items` fit one
    machine; None if data are spread over machines.
    """

    index: str
    memory_bytes: float
    query_seconds: float
    build_seconds: float
    machines: int | None
    max_items: int | None
    gpu_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Estimates for each kind of index, the choice, and the size of a snapshot."""

    workload: Workload
    machine: Machine
    estimates: Sequence[Estimate]
    choice: Estimate
    advice: str
    snapshot_bytes: float
    load_seconds: float


def build_plan(workload: Workload, machine: Machine, index: str | None = None) -> Plan:
    """Return estimates for `workload`; the choice is `index` if given, else the one that suits best."""
    estimates = [estimate(workload, machine) for estimate in (exact, hnsw, ivf, gpu, milvus)]
    by_index = {estimate.index: estimate for estimate in estimates}
    suggested, why = _suggest(by_index, machine)
    choice = by_index[index] if index else by_index[suggested]
    advice = f"{suggested}: {why}"
    return Plan(
        workload, machine, estimates, choice, advice, workload.items * _item_bytes(workload, 4), _load_seconds(workload)
    )


def exact(workload: Workload, machine: Machine) -> Estimate:
    """Estimate an exact index: every vector is compared."""
    per_item = _item_bytes(workload, constants.BYTES_PER_DIMENSION[workload.storage])
    seconds = workload.items * workload.dimensions / _floats_per_second(workload)
    return _in_process(
        "exact", workload, machine, item_bytes=per_item, query_seconds=seconds, build_seconds=_load_seconds(workload)
    )


def hnsw(workload: Workload, machine: Machine) -> Estimate:
    """Estimate a graph, whose candidates are ranked by the exact index beside it."""
    per_item = _item_bytes(workload, constants.BYTES_PER_DIMENSION[workload.storage]) + _graph_item_bytes(workload)
    built = (
        _load_seconds(workload)
        + workload.items * _graph_slowdown(workload) / constants.GRAPH_INSERTS_PER_SECOND / machine.cores
    )
    return _in_process(
        "hnsw",
        workload,
        machine,
        item_bytes=per_item,
        query_seconds=_graph_query_seconds(workload),
        build_seconds=built,
    )


def ivf(workload: Workload, machine: Machine) -> Estimate:
    """Estimate an inverted file, whose candidates are ranked by the exact index beside it."""
    code = workload.dimensions * constants.SCANNED_BYTES_PER_DIMENSION[
        workload.storage
    ] + constants.LIST_ENTRY_BYTES * len(workload.spaces)
    per_item = _item_bytes(workload, constants.BYTES_PER_DIMENSION[workload.storage]) + code
    lists = constants.LISTS_PER_SQRT_ITEMS * math.sqrt(workload.items)
    nearest = lists * workload.dimensions / constants.LIST_MULTIPLICATIONS_PER_SECOND
    seconds = nearest + workload.items * constants.PROBED_SHARE * workload.dimensions / _floats_per_second(workload)
    built = _load_seconds(workload) + workload.items * nearest / machine.cores
    return _in_process("ivf", workload, machine, item_bytes=per_item, query_seconds=seconds, build_seconds=built)


def gpu(workload: Workload, machine: Machine) -> Estimate:
    """Estimate an exact index on one GPU per machine."""
    per_item = _item_bytes(workload, constants.GPU_HOST_BYTES_PER_DIMENSION)
    gpu_per_item = constants.GPU_BYTES_PER_DIMENSION * workload.dimensions
    gpu_memory = max(0.0, machine.gpu_memory_gib * GIB * constants.MEMORY_SHARE - constants.GPU_WORKSPACE_BYTES)
    max_items = int(min(gpu_memory / gpu_per_item, _usable_memory(machine) / per_item))
    seconds = workload.items * gpu_per_item / constants.GPU_BYTES_PER_SECOND
    machines = (
        _machines(workload.queries_per_second * seconds / constants.GPU_BATCH_QUERIES)
        if workload.items <= max_items
        else None
    )
    gpu_bytes = workload.items * gpu_per_item + constants.GPU_WORKSPACE_BYTES
    memory, built = workload.items * per_item, _load_seconds(workload)
    return Estimate("gpu", memory, seconds, built, machines, max_items, gpu_bytes)


def milvus(workload: Workload, machine: Machine) -> Estimate:
    """Estimate a Milvus cluster, whose graphs are spread over query nodes that all work on each query."""
    per_item = (_item_bytes(workload, 4) + _graph_item_bytes(workload)) * constants.MILVUS_MEMORY_FACTOR
    nodes = math.ceil(workload.items * per_item / _usable_memory(machine))
    seconds = _graph_query_seconds(workload) + constants.MILVUS_OVERHEAD_SECONDS
    busy = workload.queries_per_second * seconds / machine.cores
    built = workload.items * _graph_slowdown(workload) / constants.GRAPH_INSERTS_PER_SECOND / machine.cores / nodes
    memory = workload.items * per_item
    return Estimate("milvus", memory, seconds, built, nodes * _machines(busy), None)


def _in_process(
    index: str, workload: Workload, machine: Machine, *, item_bytes: float, query_seconds: float, build_seconds: float
) -> Estimate:
    max_items = int(_usable_memory(machine) / item_bytes)
    machines = (
        _machines(workload.queries_per_second * query_seconds / machine.cores) if workload.items <= max_items else None
    )
    return Estimate(index, workload.items * item_bytes, query_seconds, build_seconds, machines, max_items)


def _suggest(estimates: Mapping[str, Estimate], machine: Machine) -> tuple[str, str]:
    """Return the simplest index that suits, and why."""
    scan = estimates["exact"]
    quick = scan.query_seconds <= constants.MAX_EXACT_SECONDS and (scan.machines or 3) <= 2
    limit = f"{constants.MAX_EXACT_SECONDS * 1e3:.0f} ms of a core"
    if quick:
        return "exact", f"recall is 1, a query takes at most {limit}, and no more than two machines are needed"
    if estimates["hnsw"].machines:
        return "hnsw", f"an exact query takes more than {limit} or many machines, and the graph fits {_size(machine)}"
    if estimates["gpu"].machines:
        return "gpu", f"recall is 1, one GPU holds all vectors, and no graph fits {_size(machine)}"
    return "milvus", f"neither a graph nor a GPU's vectors fit one machine of {_size(machine)}"


def _size(machine: Machine) -> str:
    return f"{machine.memory_gib:g} GiB"


def _usable_memory(machine: Machine) -> float:
    return machine.memory_gib * GIB * constants.MEMORY_SHARE


def _machines(busy: float) -> int:
    """Return the number of machines for the work of `busy` fully loaded ones, at a load of `LOAD_SHARE`."""
    return max(1, math.ceil(busy / constants.LOAD_SHARE))


def _item_bytes(workload: Workload, bytes_per_dimension: float) -> float:
    metadata = workload.metadata_bytes + constants.METADATA_ITEM_BYTES if workload.metadata_bytes else 0
    return bytes_per_dimension * workload.dimensions + constants.ITEM_BYTES + metadata


def _graph_item_bytes(workload: Workload) -> float:
    links = constants.GRAPH_BYTES_PER_LINK * constants.HNSW_M * len(workload.spaces)
    return links + constants.SCANNED_BYTES_PER_DIMENSION[workload.storage] * workload.dimensions


def _floats_per_second(workload: Workload) -> float:
    return (
        constants.SCANNED_BYTES_PER_SECOND[workload.storage] / constants.SCANNED_BYTES_PER_DIMENSION[workload.storage]
    )


def _graph_slowdown(workload: Workload) -> float:
    """Return the factor by which graph operations are slower than the measured ones."""
    depth = max(1.0, math.log(max(2, workload.items)) / math.log(constants.GRAPH_VECTORS))
    return depth * workload.dimensions / 512


def _graph_query_seconds(workload: Workload) -> float:
    return constants.GRAPH_QUERY_SECONDS * _graph_slowdown(workload)


def _load_seconds(workload: Workload) -> float:
    floats = workload.items * workload.dimensions
    return floats / constants.INDEXED_FLOATS_PER_SECOND[workload.storage] + workload.items / constants.ITEMS_PER_SECOND
