"""`medley status`."""

import click

from medley.cli.printing import print_json, print_table, shortened
from medley.cli.session import Session, session_options
from medley.values import CollectionStatus, Status


@click.command()
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
    services = [
        (service.name, "ok" if service.error is None else f"down: {service.error}") for service in state.services
    ]
    print_table({"service": {"min_width": 10}, "state": {"ratio": 1}}, services)
    if state.models:
        click.echo()
        models = [
            (model.name, model.dimensions, "+".join(model.inputs), shortened(model.summary, 200))
            for model in state.models
        ]
        print_table({"model": {"min_width": 12}, "dim": {"justify": "right"}, "inputs": {}, "": {"ratio": 1}}, models)
    if state.collections:
        click.echo()
        numbers = {"justify": "right", "min_width": 7}
        columns = {
            "collection": {"min_width": 12},
            "items": numbers,
            "space": {},
            "vectors": numbers,
            "engine": {},
            "": {},
        }
        print_table(columns, (row for collection in state.collections for row in _rows(collection)))


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
    return rows or [(name, state.items, "", "", "", "not indexed yet")]
