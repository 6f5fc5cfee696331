"""`medley plan`."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import click

from medley.cli.printing import print_json, print_table
from medley.sizing import Estimate, Machine, Plan, Workload, build_plan, parse_count, parse_spaces

INDEXES = ("exact", "hnsw", "ivf", "gpu", "milvus")
STORAGES = ("float32", "int8")
_UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_TIMES = ((172_800, 86_400, "days"), (7200, 3600, "h"), (120, 60, "min"), (1, 1, "s"), (1e-3, 1e-3, "ms"))


class _ParsedParam(click.ParamType[object]):
    """Parameter parsed by a function, whose ValueError becomes a usage error."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:
        """Return the parsed `value`; a default may be parsed already."""
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _PositiveFloat(click.FloatRange):
    """A finite number above zero; click's own range lets NaN and infinity through."""

    def __init__(self) -> None:
        super().__init__(0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return `value` as a number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


@click.command(short_help="Estimate memory, latency and machines of a deployment.")
@click.option(
    "--items",
    type=_ParsedParam("number", parse_count),
    multiple=True,
    required=True,
    help="Like 250k, 10M or 1B; may be repeated.",
)
@click.option("--spaces", type=_ParsedParam("name:dimensions,…", parse_spaces), default="clip:512", show_default=True)
@click.option("--index", type=click.Choice(INDEXES), help="Plan for this index.  [default: what suits best]")
@click.option(
    "--storage",
    type=click.Choice(STORAGES),
    default="int8",
    show_default=True,
    help="Type of the vectors that a scan reads.",
)
@click.option("--queries-per-second", type=_PositiveFloat(), default=10.0, show_default=True)
@click.option("--metadata-bytes", type=click.IntRange(0), default=200, show_default=True, help="Of an item, as JSON.")
@click.option("--memory-gib", type=_PositiveFloat(), default=64.0, show_default=True, help="Of a machine.")
@click.option("--cores", type=click.IntRange(1), default=16, show_default=True, help="Of a machine.")
@click.option("--gpu-memory-gib", type=_PositiveFloat(), default=80.0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def plan(items: tuple[int, ...], spaces: dict[str, int], index: str | None, as_json: bool, **options: Any) -> None:
    """Estimate memory, query time, build time and machines for the given numbers of items.

    The figures are computed from constants measured on one kind of processor; expect the order of magnitude, not more.
    A query is counted in every space.
    """
    machine = Machine(*(options[name] for name in ("memory_gib", "cores", "gpu_memory_gib")))
    chosen = (options["storage"], options["queries_per_second"], options["metadata_bytes"])
    plans = [build_plan(Workload(number, spaces, *chosen), machine, index) for number in items]
    if as_json:
        print_json([_plain(each) for each in plans])
    elif len(plans) == 1:
        _print_one(plans[0])
    else:
        print_table(_NAMES, (row for each in plans for row in _rows(each)), flexible="machines", right=_NAMES[2:])


_NAMES = ("items", "index", "memory", "GPU", "query", "build", "machines")


def _print_one(result: Plan) -> None:
    workload, machine, choice = result.workload, result.machine, result.choice
    spaces = ", ".join(f"{name} ({dimensions})" for name, dimensions in workload.spaces.items())
    metadata = f"{workload.metadata_bytes} bytes of metadata"
    machines = f"machines of {machine.cores} cores and {machine.memory_gib:g} GiB"
    click.echo(f"{workload.items:,} items; spaces {spaces}; {metadata}; {workload.storage} scans;")
    click.echo(f"{workload.queries_per_second:g} queries/s on {machines}\n")
    print_table(
        (*_NAMES, "at most"),
        (_row(result, each, tail=True) for each in result.estimates),
        flexible="machines",
        right=_NAMES[2:],
    )
    click.echo(f"\nSuggested {result.advice}.")
    if choice.machines is None:
        click.echo(f"{choice.index} does not fit: one machine takes {_count(choice.max_items or 0)} items.")
    click.echo(f"A snapshot takes {_size(result.snapshot_bytes)} and is loaded in {_time(result.load_seconds)}.")


def _rows(result: Plan) -> Iterator[tuple[str, ...]]:
    for place, estimate in enumerate(result.estimates):
        row = _row(result, estimate)
        yield row if place == 0 else ("", *row[1:])


def _row(result: Plan, estimate: Estimate, *, tail: bool = False) -> tuple[str, ...]:
    mark = "*" if estimate is result.choice else ""
    machines = "does not fit" if estimate.machines is None else f"{estimate.machines:,}"
    gpu = _size(estimate.gpu_bytes) if estimate.gpu_bytes else ""
    memory, query, build = _size(estimate.memory_bytes), _time(estimate.query_seconds), _time(estimate.build_seconds)
    row = (_count(result.workload.items), estimate.index + mark, memory, gpu, query, build, machines)
    return (*row, _count(estimate.max_items) if estimate.max_items else "") if tail else row


def _plain(result: Plan) -> dict[str, Any]:
    plain = dataclasses.asdict(result)
    plain["choice"] = result.choice.index
    return plain


def _size(number: float) -> str:
    return next((f"{number / unit:.3g} {name}" for unit, name in _UNITS if number >= unit), f"{number:.0f} B")


def _time(seconds: float) -> str:
    return next(
        (f"{seconds / unit:.3g} {name}" for least, unit, name in _TIMES if seconds >= least), f"{seconds * 1e6:.3g} µs"
    )


def _count(number: int) -> str:
    units = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))
    return next((f"{number / unit:.4g}{name}" for unit, name in units if number >= unit), str(number))
