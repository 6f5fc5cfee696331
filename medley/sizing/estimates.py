"""Memory, time and machines for so many items, by each way to index them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medley.sizing import constants as known

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Machine:
    """What machines there are."""

    memory_gib: float = 64
    cores: int = 16
    gpu_memory_gib: float = 80


@dataclass(frozen=True, slots=True)
class Need:
    """What is asked for: `spaces` are dimensions by name, `metadata_bytes` those of an item, as JSON."""

    items: int
    spaces: Mapping[str, int]
    storage: str = "int8"
    queries_per_second: float = 10
    metadata_bytes: int = 200

    @property
    def dimensions(self) -> int:
        """Dimensions of all spaces together."""
        return sum(self.spaces.values())


@dataclass(frozen=True, slots=True)
class Estimate:
    """One way to index the items, every item in each space; a query asks each space.

    `memory_bytes` are of one copy of everything, on however many machines; `gpu_bytes` of its GPU. `query_seconds` are
    those of one core, or of the GPU. `machines` answer the queries asked for; None: it does not fit. One machine takes
    `items_at_most`; None: more machines take more.
    """

    index: str
    memory_bytes: float
    query_seconds: float
    build_seconds: float
    machines: int | None
    items_at_most: int | None
    gpu_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Estimates for each way, the one to choose, and what a snapshot takes."""

    need: Need
    machine: Machine
    estimates: Sequence[Estimate]
    choice: Estimate
    advice: str
    snapshot_bytes: float
    load_seconds: float


def plan(need: Need, machine: Machine, index: str | None = None) -> Plan:
    """Return estimates for `need`; the choice is `index` where given, else what suits best."""
    estimates = [estimate(need, machine) for estimate in (exact, hnsw, ivf, gpu, milvus)]
    by_index = {estimate.index: estimate for estimate in estimates}
    suggested, why = _suggested(by_index, machine)
    choice = by_index[index] if index else by_index[suggested]
    advice = f"{suggested}: {why}"
    return Plan(need, machine, estimates, choice, advice, need.items * _item_bytes(need, 4), _load_seconds(need))


def exact(need: Need, machine: Machine) -> Estimate:
    """Every vector is compared."""
    per_item = _item_bytes(need, known.BYTES_A_DIMENSION[need.storage])
    seconds = need.items * need.dimensions / _floats_a_second(need)
    return _in_process(
        "exact", need, machine, item_bytes=per_item, query_seconds=seconds, build_seconds=_load_seconds(need)
    )


def hnsw(need: Need, machine: Machine) -> Estimate:
    """A graph is walked, and its candidates ranked by the exact index beside it."""
    per_item = _item_bytes(need, known.BYTES_A_DIMENSION[need.storage]) + _graph_item_bytes(need)
    built = _load_seconds(need) + need.items * _slower(need) / known.BUILT_A_SECOND / machine.cores
    return _in_process(
        "hnsw", need, machine, item_bytes=per_item, query_seconds=_walk_seconds(need), build_seconds=built
    )


def ivf(need: Need, machine: Machine) -> Estimate:
    """The lists near the query are read, and their candidates ranked by the exact index beside them."""
    code = need.dimensions * known.SCANNED_BYTES[need.storage] + known.LIST_ENTRY_BYTES * len(need.spaces)
    per_item = _item_bytes(need, known.BYTES_A_DIMENSION[need.storage]) + code
    lists = known.LISTS_OF_THE_ROOT * math.sqrt(need.items)
    nearest = lists * need.dimensions / known.LIST_MULTIPLIED_A_SECOND
    seconds = nearest + need.items * known.PROBED_SHARE * need.dimensions / _floats_a_second(need)
    built = _load_seconds(need) + need.items * nearest / machine.cores
    return _in_process("ivf", need, machine, item_bytes=per_item, query_seconds=seconds, build_seconds=built)


def gpu(need: Need, machine: Machine) -> Estimate:
    """Every vector is compared, on one GPU a machine."""
    per_item = _item_bytes(need, known.GPU_HOST_BYTES_A_DIMENSION)
    gpu_per_item = known.GPU_BYTES_A_DIMENSION * need.dimensions
    gpu_room = max(0.0, machine.gpu_memory_gib * GIB * known.MEMORY_SHARE - known.GPU_WORKSPACE_BYTES)
    at_most = int(min(gpu_room / gpu_per_item, _room(machine) / per_item))
    seconds = need.items * gpu_per_item / known.GPU_BYTES_A_SECOND
    machines = _machines(need.queries_per_second * seconds / known.GPU_QUERIES) if need.items <= at_most else None
    gpu_bytes = need.items * gpu_per_item + known.GPU_WORKSPACE_BYTES
    memory, built = need.items * per_item, _load_seconds(need)
    return Estimate("gpu", memory, seconds, built, machines, at_most, gpu_bytes)


def milvus(need: Need, machine: Machine) -> Estimate:
    """A Milvus cluster, its graphs spread over query nodes that all work on each query."""
    per_item = (_item_bytes(need, 4) + _graph_item_bytes(need)) * known.MILVUS_SHARE
    nodes = math.ceil(need.items * per_item / _room(machine))
    seconds = _walk_seconds(need) + known.MILVUS_SECONDS
    busy = need.queries_per_second * seconds / machine.cores
    built = need.items * _slower(need) / known.BUILT_A_SECOND / machine.cores / nodes
    memory = need.items * per_item
    return Estimate("milvus", memory, seconds, built, nodes * _machines(busy), None)


def _in_process(
    index: str, need: Need, machine: Machine, *, item_bytes: float, query_seconds: float, build_seconds: float
) -> Estimate:
    at_most = int(_room(machine) / item_bytes)
    machines = _machines(need.queries_per_second * query_seconds / machine.cores) if need.items <= at_most else None
    return Estimate(index, need.items * item_bytes, query_seconds, build_seconds, machines, at_most)


def _suggested(estimates: Mapping[str, Estimate], machine: Machine) -> tuple[str, str]:
    """Return the first way that suits, the simplest first, and why."""
    scan = estimates["exact"]
    quick = scan.query_seconds <= known.EXACT_SECONDS_AT_MOST and (scan.machines or 3) <= 2
    limit = f"{known.EXACT_SECONDS_AT_MOST * 1e3:.0f} ms of a core"
    if quick:
        return "exact", f"recall is 1, a query takes at most {limit}, and no more than two machines are needed"
    if estimates["hnsw"].machines:
        return "hnsw", f"an exact query takes more than {limit} or many machines, and the graph fits {_size(machine)}"
    if estimates["gpu"].machines:
        return "gpu", f"recall is 1, one GPU holds all vectors, and no graph fits {_size(machine)}"
    return "milvus", f"neither a graph nor a GPU's vectors fit one machine of {_size(machine)}"


def _size(machine: Machine) -> str:
    return f"{machine.memory_gib:g} GiB"


def _room(machine: Machine) -> float:
    return machine.memory_gib * GIB * known.MEMORY_SHARE


def _machines(busy: float) -> int:
    """Return how many machines do the work of `busy` ones without being busy all the time."""
    return max(1, math.ceil(busy / known.LOAD_SHARE))


def _item_bytes(need: Need, bytes_a_dimension: float) -> float:
    metadata = need.metadata_bytes + known.METADATA_ITEM_BYTES if need.metadata_bytes else 0
    return bytes_a_dimension * need.dimensions + known.ITEM_BYTES + metadata


def _graph_item_bytes(need: Need) -> float:
    links = known.GRAPH_BYTES_A_NEIGHBOUR * known.NEIGHBOURS * len(need.spaces)
    return links + known.SCANNED_BYTES[need.storage] * need.dimensions


def _floats_a_second(need: Need) -> float:
    return known.SCANNED_BYTES_A_SECOND[need.storage] / known.SCANNED_BYTES[need.storage]


def _slower(need: Need) -> float:
    """Return how much longer a step in the graphs takes than it was measured to."""
    depth = max(1.0, math.log(max(2, need.items)) / math.log(known.WALKED))
    return depth * need.dimensions / 512


def _walk_seconds(need: Need) -> float:
    return known.WALK_SECONDS * _slower(need)


def _load_seconds(need: Need) -> float:
    floats = need.items * need.dimensions
    return floats / known.INDEXED_FLOATS_A_SECOND[need.storage] + need.items / known.ITEMS_A_SECOND
