"""Index configurations on the command line: parsing, printing, and waiting for a build."""

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
FINAL_STATES = ("ready", "degraded", "failed", "waiting")


def parse_index_option(text: str) -> tuple[str, IndexConfig]:
    """Return the space and the index that `text` names: SPACE=KIND, then options as OPTION=VALUE, by commas."""
    space, equals, index = text.partition("=")
    kind, *options = index.split(",")
    pairs = [option.partition("=") for option in options]
    if not (space and equals and kind) or not all(name and value for name, _, value in pairs):
        raise click.UsageError(f"--index {text}: must be SPACE=KIND, e.g. clip=hnsw or own=ivf,nlist=256")
    return space, build_index(kind, {name.replace("-", "_"): _value(text, name, value) for name, _, value in pairs})


def build_index(kind: str, options: Mapping[str, Any]) -> IndexConfig:
    """Return the index of `kind` with `options`, or raise a usage error."""
    try:
        return index_config(kind, **options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def format_index(index: IndexConfig | None) -> str:
    """Return the kind and options of an index in words."""
    if index is None:
        return ""
    options = ((each.name, getattr(index, each.name)) for each in fields(index) if each.init)
    return " ".join((index.kind, *(f"{name}={value}" for name, value in options if value)))


def wait_for_index(client: Client, collection: Collection, space: str) -> IndexStatus:
    """Wait, without a timeout, until a space's index has the configuration and version of `collection`.

    Returns its status, which is ready, degraded, failed or waiting for more vectors.

    Raises:
        UnavailableError: the search service or the store does not answer.
        ConflictError: another index was chosen while waiting.
        NotFoundError: the collection was dropped.
    """
    task, printed = f"Indexing {collection.name}/{space}", ""
    screen = console(stderr=True)
    with screen.status(task) as spinner:
        while True:
            state = _state(client.status(), collection, space)
            if state is not None and state.state in FINAL_STATES:
                return state
            note = (state and state.note) or "waiting for the search service"
            spinner.update(f"{task}: {note}")
            if note != printed and not screen.is_terminal:
                print_error(f"{task}: {note}")
            printed = note
            time.sleep(POLL_SECONDS)


def _state(status: Status, collection: Collection, space: str) -> IndexStatus | None:
    """Return the status of the requested index; None until the search service knows of it."""
    for service in status.services:
        if service.name in ("search", "store") and service.error is not None:
            raise UnavailableError(
                f"{service.name} does not answer: {service.error}", metadata={"service": service.name}
            )
    requested = _index(collection, space)
    for each in status.collections:
        if each.collection.name != collection.name:
            continue
        if _index(each.collection, space) != requested:
            raise ConflictError(f"{collection.name}/{space} was given another index while waiting")
        matching = (index for index in each.indexes if index.space == space and index.config == requested)
        return next((index for index in matching if not _older(index.version, collection.version)), None)
    raise NotFoundError(f"collection {collection.name!r} was dropped while waiting")


def _index(collection: Collection, space: str) -> IndexConfig | None:
    return next((each.index for each in collection.spaces if each.name == space), None)


def _older(version: str, required: str) -> bool:
    """Return whether `version` has another uid than `required` or counts fewer commits."""
    (uid, _, commits), (required_uid, _, required_commits) = version.rpartition("."), required.rpartition(".")
    return uid != required_uid or int(commits) < int(required_commits)


def _value(text: str, name: str, value: str) -> Any:
    if name == "storage":
        return value
    try:
        return float(value) if name.replace("-", "_") in ("exact_below_selectivity", "recall_floor") else int(value)
    except ValueError:
        raise click.UsageError(f"--index {text}: {name} must be a number") from None
