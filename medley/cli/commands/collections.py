"""`medley collections`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click

from medley.cli.indexing import build_index, format_index, parse_index_option, wait_for_index
from medley.cli.printing import print_json, print_table
from medley.cli.session import Session, as_of_option, session_options
from medley.indexes import KINDS, IndexConfig
from medley.values import Collection, Space


@click.group()
def collections() -> None:
    """List, create, show, index and drop collections."""


@collections.command("list")
@session_options
def list_(session: Session) -> None:
    """List the collections."""
    with session.connect() as client:
        found = list(client.collections())
    if session.as_json:
        print_json(found)
    elif found:
        rows = ((each.name, ", ".join(space.name for space in each.spaces), _format_time(each)) for each in found)
        print_table(("collection", "spaces", "created"), rows, flexible="spaces")
    else:
        click.echo("no collections")


@collections.command()
@click.argument("name")
@click.option(
    "--space",
    "spaces",
    multiple=True,
    metavar="NAME=MODEL|DIMENSIONS",
    help="A space, e.g. clip=medley-mini, or own=768 for your own vectors.  [default: clip and text]",
)
@click.option(
    "--index",
    "index_options",
    multiple=True,
    metavar="SPACE=KIND[,OPTION=N…]",
    help="How a space is indexed, e.g. clip=hnsw or own=ivf,nlist=256.  [default: exact]",
)
@session_options
def create(session: Session, name: str, spaces: tuple[str, ...], index_options: tuple[str, ...]) -> None:
    """Create an empty collection; if it exists with these spaces, only its indexes are changed."""
    indexes = dict(map(parse_index_option, index_options))
    requested = _with_indexes(list(map(_parse_space, spaces)), indexes)
    with session.connect() as client:
        collection = client.create_collection(name, requested or None)
        for space, index in indexes.items():
            collection = client.update_space(name, space, index=index)
        _show(session, collection)


@collections.command(short_help="Choose how a space is indexed.")
@click.argument("name")
@click.argument("space")
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.option("--m", type=int, help="hnsw: links per vector (M).")
@click.option("--ef-construction", type=int, help="hnsw: candidates of a build (efConstruction).")
@click.option("--ef-search", type=int, help="hnsw: candidates of a search (efSearch).")
@click.option("--nlist", type=int, help="ivf: number of lists (nlist).")
@click.option("--nprobe", type=int, help="ivf: lists that a search reads (nprobe).")
@click.option("--product-bytes", type=int, help="ivf: bytes of a product-quantized vector, instead of --storage.")
@click.option(
    "--storage", type=click.Choice(["float32", "float16", "int8"]), help="Type of the vectors that a search scans."
)
@click.option(
    "--exact-below-selectivity", type=float, help="hnsw, ivf: compare exactly if a filter leaves at most this share."
)
@click.option("--recall-floor", type=float, help="hnsw, ivf: answer exactly while recall at 10 is below this.")
@click.option("--wait", is_flag=True, help="Wait until the index is built.")
@session_options
def index(session: Session, name: str, space: str, kind: str, wait: bool, **options: Any) -> int:
    """Choose how the space SPACE of the collection NAME is indexed; options default to the server's choice.

    The current index answers searches until the new one is built; `medley status` shows the progress. With --wait the
    exit code is 1 if the index cannot be built, waits for more vectors, or has a recall below the floor.
    """
    chosen = build_index(kind, {option: value for option, value in options.items() if value is not None})
    with session.connect() as client:
        collection = client.update_space(name, space, index=chosen)
        state = wait_for_index(client, collection, space) if wait else None
    if session.as_json:
        print_json(collection if state is None else {"collection": collection, "index": state})
    else:
        _show(session, collection)
        if state is not None:
            click.echo(f"{space}: {state.state}, {state.vectors} vectors{f': {state.note}' if state.note else ''}")
    return 0 if state is None or state.state == "ready" else 1


@collections.command()
@click.argument("name")
@as_of_option
@session_options
def show(session: Session, name: str, as_of: str) -> None:
    """Show a collection's spaces and how many items it has."""
    with session.connect() as client:
        _show(session, client.collection(name), client.count(name, as_of=as_of), as_of)


@collections.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@session_options
def drop(session: Session, name: str, yes: bool) -> None:
    """Remove a collection with all its items."""
    with session.connect() as client:
        if not yes:
            click.confirm(f"Remove {name} with its {client.count(name)} items?", abort=True)
        client.drop_collection(name)
    if session.as_json:
        print_json({"dropped": name})
    else:
        click.echo(f"dropped {name}")


def _show(session: Session, collection: Collection, items: int | None = None, as_of: str = "") -> None:
    if session.as_json:
        print_json(collection if items is None else {"collection": collection, "items": items})
        return
    counted = "" if items is None else f", {items} items"
    version = f"as of {as_of}" if as_of else f"version {collection.version}"
    click.echo(f"{collection.name}: {version}{counted}")
    rows = map(_space_row, collection.spaces)
    print_table(("space", "model", "dim", "metric", "made from", "index"), rows, flexible="index", right=("dim",))


def _space_row(space: Space) -> tuple[object, ...]:
    return (
        space.name,
        space.model or "(your own)",
        space.dimensions,
        space.metric,
        ", ".join(space.sources) or "vectors",
        format_index(space.index),
    )


def _with_indexes(spaces: list[Space], indexes: Mapping[str, IndexConfig]) -> list[Space]:
    """Return `spaces` with their indexes; without spaces, the server's default ones get them later."""
    names = [space.name for space in spaces]
    if spaces and (unknown := sorted(indexes.keys() - set(names))):
        raise click.UsageError(f"--index {unknown[0]}: the spaces are {', '.join(names)}")
    return [replace(space, index=indexes.get(space.name)) for space in spaces]


def _parse_space(text: str) -> Space:
    name, _, kind = text.partition("=")
    if not name or not kind:
        raise click.UsageError(f"--space {text}: must be NAME=MODEL or NAME=DIMENSIONS")
    return Space(name, dimensions=int(kind)) if kind.isdecimal() else Space(name, model=kind)


def _format_time(collection: Collection) -> str:
    return f"{collection.create_time:%Y-%m-%d %H:%M}" if collection.create_time else ""
