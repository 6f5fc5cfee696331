"""`medley plan`."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import click

from medley.cli.printing import print_json, print_table
from medley.sizing import Estimate, Machine, Need, Plan, read_count, read_spaces
from medley.sizing import plan as planned

INDEXES = ("exact", "hnsw", "ivf", "gpu", "milvus")
STORAGES = ("float32", "int8")
_UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_TIMES = ((172_800, 86_400, "days"), (7200, 3600, "h"), (120, 60, "min"), (1, 1, "s"), (1e-3, 1e-3, "ms"))


class _Read(click.ParamType[object]):
    """What a function reads, its complaint told as click tells wrong usage."""

    def __init__(self, name: str, read: Callable[[str], object]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:
        """Return what `value` means; a default may be read already."""
        try:
            return self._read(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Positive(click.FloatRange):
    """A finite number above zero; click's own range lets NaN and infinity through."""

    def __init__(self) -> None:
        super().__init__(0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return `value` as a number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number", param, ctx)
        return number


@click.command(short_help="Estimate memory, latency and machines before there are any.")
@click.option(
    "--items",
    type=_Read("number", read_count),
    multiple=True,
    required=True,
    help="Like 250k, 10M or 1B; may be repeated.",
)
@click.option("--spaces", type=_Read("name:dimensions,…", read_spaces), default="clip:512", show_default=True)
@click.option("--index", type=click.Choice(INDEXES), help="Plan for this one, whatever suits best.")
@click.option("--storage", type=click.Choice(STORAGES), default="int8", show_default=True, help="What a scan reads.")
@click.option("--queries-per-second", type=_Positive(), default=10.0, show_default=True)
@click.option("--metadata-bytes", type=click.IntRange(0), default=200, show_default=True, help="Of an item, as JSON.")
@click.option("--memory-gib", type=_Positive(), default=64.0, show_default=True, help="Of a machine.")
@click.option("--cores", type=click.IntRange(1), default=16, show_default=True, help="Of a machine.")
@click.option("--gpu-memory-gib", type=_Positive(), default=80.0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def plan(items: tuple[int, ...], spaces: dict[str, int], index: str | None, as_json: bool, **options: Any) -> None:
    """Estimate what indexes of so many items take: memory, time of a query, time to build, machines.

    The figures come from constants that were measured once, on one kind of processor: they tell 50 ms from 5 ms and 1
    machine from 10, not more. A query asks every space.
    """
    machine = Machine(*(options[name] for name in ("memory_gib", "cores", "gpu_memory_gib")))
    chosen = (options["storage"], options["queries_per_second"], options["metadata_bytes"])
    plans = [planned(Need(number, spaces, *chosen), machine, index) for number in items]
    if as_json:
        print_json([_plain(each) for each in plans])
    elif len(plans) == 1:
        _print_one(plans[0])
    else:
        print_table(_NAMES, (row for each in plans for row in _rows(each)), stretched="machines", right=_NAMES[2:])


_NAMES = ("items", "index", "memory", "GPU", "query", "build", "machines")


def _print_one(found: Plan) -> None:
    need, machine, choice = found.need, found.machine, found.choice
    spaces = ", ".join(f"{name} ({dimensions})" for name, dimensions in need.spaces.items())
    click.echo(f"{need.items:,} items; spaces {spaces}; {need.metadata_bytes} bytes of metadata; {need.storage} scans;")
    click.echo(
        f"{need.queries_per_second:g} queries/s on machines of {machine.cores} cores and {machine.memory_gib:g} GiB\n"
    )
    print_table(
        (*_NAMES, "at most"),
        (_row(found, each, tail=True) for each in found.estimates),
        stretched="machines",
        right=_NAMES[2:],
    )
    click.echo(f"\nSuggested {found.advice}.")
    if choice.machines is None:
        click.echo(f"{choice.index} does not fit: one machine takes {_count(choice.items_at_most or 0)} items.")
    click.echo(f"A snapshot takes {_size(found.snapshot_bytes)} and is loaded in {_time(found.load_seconds)}.")


def _rows(found: Plan) -> Iterator[tuple[str, ...]]:
    for place, estimate in enumerate(found.estimates):
        row = _row(found, estimate)
        yield row if place == 0 else ("", *row[1:])


def _row(found: Plan, estimate: Estimate, *, tail: bool = False) -> tuple[str, ...]:
    mark = "*" if estimate is found.choice else ""
    machines = "does not fit" if estimate.machines is None else f"{estimate.machines:,}"
    gpu = _size(estimate.gpu_bytes) if estimate.gpu_bytes else ""
    memory, query, build = _size(estimate.memory_bytes), _time(estimate.query_seconds), _time(estimate.build_seconds)
    row = (_count(found.need.items), estimate.index + mark, memory, gpu, query, build, machines)
    return (*row, _count(estimate.items_at_most) if estimate.items_at_most else "") if tail else row


def _plain(found: Plan) -> dict[str, Any]:
    plain = dataclasses.asdict(found)
    plain["choice"] = found.choice.index
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
