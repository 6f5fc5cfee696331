"""`medley up`."""

import signal
from pathlib import Path

import click

from medley.suite import SERVICES, SuiteError, suite


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
    help="Port of the gateway; the other services take the next ones.",
)
def up(data: Path, port_base: int) -> None:
    """Run the services on this machine until Ctrl-C."""
    ports = [port_base + number for number in range(len(SERVICES))]
    signal.signal(signal.SIGTERM, _interrupt)
    with suite(data.absolute(), ports) as running:
        try:
            running.wait_until_ready()
            click.echo(f"medley is up on {running.server}, its data in {data}; Ctrl-C stops it")
            code = running.wait()
        except KeyboardInterrupt:
            click.echo("stopping", err=True)
            code = running.stop()
    if code > 0:
        raise SuiteError(f"the services ended with code {code}")


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
