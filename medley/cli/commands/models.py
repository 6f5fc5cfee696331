"""`medley models`."""

import subprocess
import sys

import click

from medley.local_server import SAFE_PATH, require_server

MODULE = "services.embedder.export"


@click.group()
def models() -> None:
    """Build models for the embedder from the hub or from folders, and list them."""


def _forwarding_command(name: str, summary: str) -> click.Command:
    """Return a command that forwards all its arguments, including `--help`, to the server's program."""

    @click.command(name, help=summary, add_help_option=False, context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> int:
        require_server()
        # A separate process, because the command line does not import the services.
        return _exit_code([sys.executable, *SAFE_PATH, "-m", MODULE, name, *arguments])

    return command


def _exit_code(command: list[str]) -> int:
    with subprocess.Popen(command) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # the process receives it too, and cleans up
                continue


models.add_command(_forwarding_command("build", "Build models; see `medley models build --help`."))
models.add_command(
    _forwarding_command("list", "List the models in folders, by default those that the embedder serves.")
)
