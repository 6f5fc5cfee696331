"""`medley up`."""

import signal
from pathlib import Path

import click

from medley.local_server import SERVICES, LocalServerError, run_local_server


@click.command()
@click.option(
    "--data",
    default="data",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of rows and media.",
)
@click.option(
    "--port-base",
    default=50050,
    show_default=True,
    type=click.IntRange(1, 65535 - len(SERVICES)),
    help="Port of the gateway; the other services use the next ones.",
)
def up(data: Path, port_base: int) -> None:
    """Run the services on this machine until Ctrl-C."""
    ports = [port_base + number for number in range(len(SERVICES))]
    signal.signal(signal.SIGTERM, _interrupt)
    with run_local_server(data.absolute(), ports) as running:
        try:
            running.wait_until_ready()
            click.echo(f"medley is up on {running.server}, with its data in {data}; Ctrl-C stops it")
            code = running.wait()
        except KeyboardInterrupt:
            click.echo("stopping", err=True)
            code = running.stop()
    if code > 0:
        raise LocalServerError(f"the services ended with code {code}")


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
