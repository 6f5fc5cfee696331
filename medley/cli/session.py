"""Options common to the commands, and the connection to the server."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from medley._transport.defaults import SERVER, TIMEOUT_SECONDS
from medley.client import Client
from medley.errors import UnavailableError

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Session:
    """The options common to the commands that talk to a server."""

    server: str
    timeout: float
    ca: str | None
    token: str | None
    as_json: bool

    @contextmanager
    def connect(self) -> Iterator[Client]:
        """Yield a client.

        Raises:
            UnavailableError: the server does not answer; the message says how to start one.
        """
        with Client(self.server, timeout=self.timeout, ca=self.ca, token=self.token) as client:
            try:
                yield client
            except UnavailableError as error:
                raise self.explain(error) from error

    def explain(self, error: UnavailableError) -> UnavailableError:
        """Return `error` with a hint how to start a server, unless it comes from a server."""
        if error.metadata:
            return error
        hint = "start one with `medley up`, or name another with --server"
        return UnavailableError(f"no answer from {self.server} ({_short(str(error))}): {hint}", error.reason)


def session_options(command: Command) -> Command:
    """Add the common options to `command`, which is called with a `Session` as `session`."""
    options = (
        click.option("--server", envvar="MEDLEY_SERVER", default=SERVER, show_default=True, help="Host and port."),
        click.option("--timeout", default=TIMEOUT_SECONDS, show_default=True, help="Seconds for each call."),
        click.option(
            "--ca",
            envvar="MEDLEY_CA",
            type=click.Path(dir_okay=False),
            help="PEM file of the certificate authority; connects with TLS.",
        ),
        click.option("--token", envvar="MEDLEY_TOKEN", help="Bearer token to send."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    )

    def with_session(server: str, timeout: float, ca: str | None, token: str | None, as_json: bool, **rest: Any) -> Any:
        return command(session=Session(server, timeout, ca, token, as_json), **rest)

    with_session.__doc__ = command.__doc__
    with_session.__name__ = command.__name__
    wrapped: Any = with_session
    wrapped.__click_params__ = list(getattr(command, "__click_params__", []))
    for option in reversed(options):
        wrapped = option(wrapped)
    result: Command = wrapped
    return result


def collection_option(command: Command) -> Command:
    """Add the option that names the collection."""
    option = click.option("--collection", "-c", required=True, metavar="NAME", help="Name of the collection.")
    return option(command)


def as_of_option(command: Command) -> Command:
    """Add the option that names a version to read."""
    option = click.option("--as-of", default="", metavar="VERSION|TAG", help="Read as of this version.")
    return option(command)


def _short(problem: str) -> str:
    """Return the cause, which is last in gRPC's message about a failed connection."""
    parts = [part.strip(" []") for part in problem.split(": ")]
    return next((part for part in reversed(parts) if part not in ("", "OK")), problem)
