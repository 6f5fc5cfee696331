"""The command line: `medley`, installed with the extra `cli`."""

import os
import sys


def main() -> None:
    """Run the command that the arguments name, and exit with its code: 0, 1 for a failure, 2 for wrong usage."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own log; the client raises errors
    try:
        from medley.cli.app import run  # noqa: PLC0415  # its imports need the extra `cli`, and are slow
    except ModuleNotFoundError as error:
        sys.exit(f"medley: the command line needs {error.name}: pip install 'medley[cli]'")
    sys.exit(run())
