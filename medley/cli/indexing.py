"""How a space is indexed: as it is typed and told, and the wait until it is."""

import time
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import click

from medley.cli.printing import console, print_error
from medley.client import Client
from medley.errors import ConflictError, NotFoundError, UnavailableError
from medley.indexes import IndexConfig, IndexStatus, index_config
from medley.values import Collection, Status

POLL_SECONDS = 0.5
SETTLED = ("ready", "degraded", "failed", "waiting")


def index_wish(spelt: str) -> tuple[str, IndexConfig]:
    """Return the space and the index that `spelt` names: SPACE=KIND, then options as OPTION=VALUE, by commas."""
    space, equals, index = spelt.partition("=")
    kind, *options = index.split(",")
    pairs = [option.partition("=") for option in options]
    if not (space and equals and kind) or not all(name and value for name, _, value in pairs):
        raise click.UsageError(f"--index {spelt}: wants SPACE=KIND, e.g. clip=hnsw or own=ivf,nlist=256")
    return space, index_of(kind, {name.replace("-", "_"): _value(spelt, name, value) for name, _, value in pairs})


def index_of(kind: str, options: Mapping[str, Any]) -> IndexConfig:
    """Return the index of `kind` with `options`, or say what cannot be."""
    try:
        return index_config(kind, **options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def spelt_index(index: IndexConfig | None) -> str:
    """Return how a space is indexed, with its options, for people."""
    if index is None:
        return ""
    options = ((each.name, getattr(index, each.name)) for each in fields(index) if each.init)
    return " ".join((index.kind, *(f"{name}={value}" for name, value in options if value)))


def waited(client: Client, collection: Collection, space: str) -> IndexStatus:
    """Return the state of a space's index once it is what `collection` says, and as new; wait for it without end.

    Raises:
        UnavailableError: the search service or the store does not answer.
        ConflictError: meanwhile another index was chosen.
        NotFoundError: the collection was dropped.
    """
    what, told = f"Indexing {collection.name}/{space}", ""
    screen = console(stderr=True)
    with screen.status(what) as spinner:
        while True:
            state = _state(client.status(), collection, space)
            if state is not None and state.state in SETTLED:
                return state
            note = (state and state.note) or "waiting for the search service"
            spinner.update(f"{what}: {note}")
            if note != told and not screen.is_terminal:
                print_error(f"{what}: {note}")
            told = note
            time.sleep(POLL_SECONDS)


def _state(status: Status, collection: Collection, space: str) -> IndexStatus | None:
    """Return the state of the index as it is wanted; None where the search service has not heard of that yet."""
    for service in status.services:
        if service.name in ("search", "store") and service.error is not None:
            raise UnavailableError(
                f"{service.name} does not answer: {service.error}", metadata={"service": service.name}
            )
    wanted = _index(collection, space)
    for each in status.collections:
        if each.collection.name != collection.name:
            continue
        if _index(each.collection, space) != wanted:
            raise ConflictError(f"{collection.name}/{space} was given another index meanwhile")
        held = (index for index in each.indexes if index.space == space and index.config == wanted)
        return next((index for index in held if not _older(index.version, collection.version)), None)
    raise NotFoundError(f"collection {collection.name!r} was dropped meanwhile")


def _index(collection: Collection, space: str) -> IndexConfig | None:
    return next((each.index for each in collection.spaces if each.name == space), None)


def _older(version: str, wanted: str) -> bool:
    """Return whether `version` is another collection's or counts fewer commits."""
    (life, _, commits), (wanted_life, _, wanted_commits) = version.rpartition("."), wanted.rpartition(".")
    return life != wanted_life or int(commits) < int(wanted_commits)


def _value(spelt: str, name: str, value: str) -> Any:
    if name == "storage":
        return value
    try:
        return float(value) if name.replace("-", "_") in ("exact_below_selectivity", "recall_floor") else int(value)
    except ValueError:
        raise click.UsageError(f"--index {spelt}: {name} wants a number") from None
