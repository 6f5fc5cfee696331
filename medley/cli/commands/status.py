"""`medley status`."""

import click

from medley.cli.printing import print_json, print_table
from medley.cli.session import Session, session_options
from medley.indexes import IndexStatus
from medley.values import CollectionStatus, Status

MIB = 2**20


@click.command(short_help="Show the status of services and indexes.")
@session_options
def status(session: Session) -> int:
    """Show the services, the models, and the version and recall of each collection's indexes."""
    with session.connect() as client:
        state = client.status()
    if session.as_json:
        print_json(state)
    else:
        print_status(state)
    return 0 if all(service.error is None for service in state.services) else 1


def print_status(state: Status) -> None:
    """Print the services, the models, the collections and their indexes."""
    services = ((each.name, "ok" if each.error is None else f"down: {each.error}") for each in state.services)
    print_table(("service", "state"), services, flexible="state")
    if state.models:
        click.echo()
        models = ((each.name, each.dimensions, "+".join(each.inputs), each.summary) for each in state.models)
        print_table(("model", "dim", "inputs", "about"), models, flexible="about", right=("dim",))
    if state.collections:
        click.echo()
        names = ("collection", "items", "indexes")
        rows = ((each.collection.name, each.items, _currency(each)) for each in state.collections)
        print_table(names, rows, flexible="indexes", right=("items",))
    print_indexes([index for each in state.collections for index in each.indexes])


def print_indexes(indexes: list[IndexStatus]) -> None:
    """Print the indexes, then the recall that was measured and the notes."""
    if not indexes:
        return
    click.echo()
    names = ("collection", "space", "engine", "state", "vectors", "memory", "lag")
    print_table(names, map(_index_row, indexes), flexible="engine", right=("vectors", "memory", "lag"))
    if measured := [row for index in indexes for row in _recall_rows(index)]:
        click.echo()
        shares = ("collection", "space", "filter leaves", "recall at 10", "queries")
        print_table(shares, measured, flexible="filter leaves", right=("recall at 10", "queries"))
    for index in indexes:
        if index.note:
            click.echo(f"{index.collection}/{index.space}: {index.note}")


def _currency(state: CollectionStatus) -> str:
    """Return whether the indexes of a collection are current, and which are behind."""
    behind = [index.space for index in state.indexes if index.version != state.collection.version]
    missing = {space.name for space in state.collection.spaces} - {index.space for index in state.indexes}
    if missing:
        return "none yet" if not state.indexes else f"none yet: {', '.join(sorted(missing))}"
    return f"behind: {', '.join(behind)}" if behind else "current"


def _index_row(index: IndexStatus) -> tuple[object, ...]:
    return (
        index.collection,
        index.space,
        index.engine,
        index.state or "",
        index.vectors,
        f"{index.memory_bytes / MIB:.1f} MiB",
        f"{index.lag_seconds:.1f} s" if index.lag_seconds else "-",
    )


def _recall_rows(index: IndexStatus) -> list[tuple[object, ...]]:
    return [
        (
            index.collection,
            index.space,
            "all" if each.share_above >= 1 else f"{100 * each.share_above:.3g}% to {100 * each.share_up_to:.3g}%",
            f"{each.recall:.3f}",
            each.queries,
        )
        for each in index.recall
    ]
