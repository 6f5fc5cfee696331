"""`medley models`."""

import subprocess
import sys

import click

from medley.suite import SAFE_PATH, require_server

MODULE = "services.embedder.export"


@click.group()
def models() -> None:
    """Build models for the embedder from the hub or from folders, and list those there are."""


def _passed_on(name: str, summary: str) -> click.Command:
    """Return a command that leaves its arguments, `--help` among them, to the program that does the work."""

    @click.command(name, help=summary, add_help_option=False, context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> int:
        require_server()
        # A process of its own, as the services are: the command line knows none of their code.
        return _exit_code([sys.executable, *SAFE_PATH, "-m", MODULE, name, *arguments])

    return command


def _exit_code(command: list[str]) -> int:
    with subprocess.Popen(command) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # the process has it too, and tidies up
                continue


models.add_command(_passed_on("build", "Build models; `medley models build --help` tells how."))
models.add_command(_passed_on("list", "List the models in folders, by default those that the embedder serves."))
