"""What every command shares: the server it talks to, and how it answers."""

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
    def connected(self) -> Iterator[Client]:
        """Yield a client; where no server answers, say how to get one.

        Raises:
            UnavailableError: the server does not answer.
        """
        with Client(self.server, timeout=self.timeout, ca=self.ca, token=self.token) as client:
            try:
                yield client
            except UnavailableError as error:
                raise self.explained(error) from error

    def explained(self, error: UnavailableError) -> UnavailableError:
        """Return `error` as it helps whoever typed the command: a server's own words stay as they are."""
        if error.metadata:
            return error
        hint = "start one with `medley up`, or name another with --server"
        return UnavailableError(f"no answer from {self.server} ({_short(str(error))}): {hint}", error.reason)


def session_options(command: Command) -> Command:
    """Add the common options to `command`, which is called with a `Session` as `session`."""
    options = (
        click.option("--server", envvar="MEDLEY_SERVER", default=SERVER, show_default=True, help="Host and port."),
        click.option("--timeout", default=TIMEOUT_SECONDS, show_default=True, help="Seconds for each call."),
        click.option("--ca", envvar="MEDLEY_CA", type=click.Path(dir_okay=False), help="PEM file: connect by TLS."),
        click.option("--token", envvar="MEDLEY_TOKEN", help="Bearer token to send."),
        click.option("--json", "as_json", is_flag=True, help="Answer in JSON."),
    )

    def with_session(server: str, timeout: float, ca: str | None, token: str | None, as_json: bool, **rest: Any) -> Any:
        return command(session=Session(server, timeout, ca, token, as_json), **rest)

    with_session.__doc__ = command.__doc__
    with_session.__name__ = command.__name__
    wrapped: Any = with_session
    wrapped.__click_params__ = list(getattr(command, "__click_params__", []))
    for option in reversed(options):
        wrapped = option(wrapped)
    named: Command = wrapped
    return named


def collection_option(command: Command) -> Command:
    """Add the option that names the collection."""
    option = click.option("--collection", "-c", required=True, metavar="NAME", help="Name of the collection.")
    return option(command)


def as_of_option(command: Command) -> Command:
    """Add the option that names a version to read."""
    option = click.option("--as-of", default="", metavar="VERSION|TAG", help="Read what was there then.")
    return option(command)


def _short(problem: str) -> str:
    """Return the cause, which gRPC's account of a failed connection names last."""
    parts = [part.strip(" []") for part in problem.split(": ")]
    return next((part for part in reversed(parts) if part not in ("", "OK")), problem)
