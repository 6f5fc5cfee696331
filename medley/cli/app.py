"""The command group, and the handling of errors."""

import os
import sys

import click

from medley import __version__
from medley.backup import BackupError
from medley.cli.commands.backup import backup, restore
from medley.cli.commands.collections import collections
from medley.cli.commands.demo import demo
from medley.cli.commands.fsck import fsck
from medley.cli.commands.ingest import ingest
from medley.cli.commands.items import delete, get, list_, update
from medley.cli.commands.models import models
from medley.cli.commands.plan import plan
from medley.cli.commands.search import search
from medley.cli.commands.status import status
from medley.cli.commands.tags import tag
from medley.cli.commands.up import up
from medley.cli.exit_codes import INTERRUPTED
from medley.cli.printing import print_error
from medley.errors import Error
from medley.inputs import InputError
from medley.local_server import LocalServerError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="medley")
def medley() -> None:
    """Search pictures and texts by words, by pictures, or by both, on your own machine.

    Try `medley demo` first. Then `medley up` starts the server, `medley ingest FOLDER --collection NAME --create` fills
    a collection, and `medley search WORDS --collection NAME` searches it.
    """


_COMMON = (up, demo, ingest, search, get, list_, update, delete, collections, status)
_MAINTENANCE = (models, fsck, tag, backup, restore, plan)

for command in (*_COMMON, *_MAINTENANCE):
    medley.add_command(command)


def run(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code; a failure prints one line on stderr."""
    try:
        code = medley.main(arguments, prog_name="medley", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print_error("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Error, InputError, BackupError, LocalServerError, ValueError, OSError) as error:
        print_error(_line(error))
    except Exception as error:  # a bug
        print_error(f"unexpected {type(error).__name__}: {error}")
    return 1


def _line(error: Exception) -> str:
    match error:
        case OSError(filename=str() | bytes() as name, strerror=str() as problem):
            return f"{name!s}: {problem}"
        case _:
            return " ".join(str(error).split())
