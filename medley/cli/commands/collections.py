"""`medley collections`."""

import click

from medley.cli.printing import print_json, print_table
from medley.cli.session import Session, as_of_option, session_options
from medley.values import Collection, Space


@click.group()
def collections() -> None:
    """List, create, show and drop collections."""


@collections.command("list")
@session_options
def list_(session: Session) -> None:
    """List the collections."""
    with session.connected() as client:
        found = list(client.collections())
    if session.as_json:
        print_json(found)
    elif found:
        rows = ((each.name, ", ".join(space.name for space in each.spaces), _day(each)) for each in found)
        print_table(("collection", "spaces", "created"), rows, stretched="spaces")
    else:
        click.echo("no collections")


@collections.command()
@click.argument("name")
@click.option(
    "--space",
    "spaces",
    multiple=True,
    metavar="NAME=MODEL|DIMENSIONS",
    help="A space, e.g. clip=medley-mini, or own=768 for vectors of your own.  [default: clip and text]",
)
@session_options
def create(session: Session, name: str, spaces: tuple[str, ...]) -> None:
    """Create an empty collection; the same one again is left as it is."""
    with session.connected() as client:
        _show(session, client.create_collection(name, list(map(_space, spaces)) or None))


@collections.command()
@click.argument("name")
@as_of_option
@session_options
def show(session: Session, name: str, as_of: str) -> None:
    """Show a collection's spaces and how many items it has."""
    with session.connected() as client:
        _show(session, client.collection(name), client.count(name, as_of=as_of), as_of)


@collections.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@session_options
def drop(session: Session, name: str, yes: bool) -> None:
    """Remove a collection with all its items."""
    with session.connected() as client:
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
    print_table(("space", "model", "dim", "metric", "made from"), rows, stretched="made from", right=("dim",))


def _space_row(space: Space) -> tuple[object, ...]:
    return (
        space.name,
        space.model or "(your own)",
        space.dimensions,
        space.metric,
        ", ".join(space.sources) or "vectors",
    )


def _space(spelt: str) -> Space:
    name, _, kind = spelt.partition("=")
    if not name or not kind:
        raise click.UsageError(f"--space {spelt}: wants NAME=MODEL or NAME=DIMENSIONS")
    return Space(name, dimensions=int(kind)) if kind.isdecimal() else Space(name, model=kind)


def _day(collection: Collection) -> str:
    return f"{collection.create_time:%Y-%m-%d %H:%M}" if collection.create_time else ""
