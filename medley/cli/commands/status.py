"""`medley status`."""

import click

from medley.cli.printing import print_json, print_table
from medley.cli.session import Session, session_options
from medley.values import CollectionStatus, Status


@click.command(short_help="Show whether all is well.")
@session_options
def status(session: Session) -> int:
    """Show whether the services answer, the models, and how current each collection's indexes are."""
    with session.connected() as client:
        state = client.status()
    if session.as_json:
        print_json(state)
    else:
        print_status(state)
    return 0 if all(service.error is None for service in state.services) else 1


def print_status(state: Status) -> None:
    """Print the services, the models and the collections."""
    services = ((each.name, "ok" if each.error is None else f"down: {each.error}") for each in state.services)
    print_table(("service", "state"), services, stretched="state")
    if state.models:
        click.echo()
        models = ((each.name, each.dimensions, "+".join(each.inputs), each.summary) for each in state.models)
        print_table(("model", "dim", "inputs", "about"), models, stretched="about", right=("dim",))
    if state.collections:
        click.echo()
        names = ("collection", "items", "space", "vectors", "engine", "index")
        rows = (row for each in state.collections for row in _rows(each))
        print_table(names, rows, stretched="engine", right=("items", "vectors"))


def _rows(state: CollectionStatus) -> list[tuple[object, ...]]:
    name, version = state.collection.name, state.collection.version
    rows: list[tuple[object, ...]] = [
        (
            name,
            state.items,
            index.space,
            index.vectors,
            index.engine,
            "current" if index.version == version else "behind",
        )
        for index in state.indexes
    ]
    return rows or [(name, state.items, "", "", "", "none yet")]
